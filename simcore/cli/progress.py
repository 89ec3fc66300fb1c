"""The bar on stderr while an experiment runs."""

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from simcore.experiment.board import Board

__all__ = ["ExperimentProgress"]


class ExperimentProgress(Progress):
    """One bar over all jobs, read from the board whenever it is drawn; shown on a terminal only."""

    def __init__(self, name: str, board: Board, jobs: int, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._board = board
        super().__init__(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._all = self.add_task(f"{name}: {jobs} runs" if jobs > 1 else name, total=jobs)

    def get_renderables(self) -> list[RenderableType]:
        """See ``Progress``."""
        if self.tasks:
            stopping = "stopping: " if self._board.stopped else ""
            description = stopping + self.tasks[0].description.removeprefix(stopping)
            self.update(self._all, completed=self._board.jobs_done, description=description)
        return list(super().get_renderables())
