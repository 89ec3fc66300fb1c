"""What the processes of an experiment tell each other while it runs: how far each job is, and that all shall stop."""

from pathlib import Path
from typing import Self

import numpy as np

__all__ = ["Board"]


class Board:
    """Numbers in a file that every process maps into its memory; cheap to copy to another process.

    The first says whether to stop, the others are the jobs' shares done, each written by one process only.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells = np.memmap(path, dtype=np.float64, mode="r+")

    @classmethod
    def create(cls, path: Path, jobs: int) -> Self:
        """A new board for ``jobs`` jobs."""
        np.zeros(jobs + 1).tofile(path)
        return cls(path)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self._path,)

    def stop(self) -> None:
        """Ask every job to end with what it has."""
        self._cells[0] = 1

    @property
    def stopped(self) -> bool:
        return bool(self._cells[0])

    def report(self, job: int, share: float) -> None:
        """Job number ``job`` is done to this share."""
        self._cells[job + 1] = share

    @property
    def jobs_done(self) -> float:
        """The sum of all shares."""
        return float(self._cells[1:].sum())
