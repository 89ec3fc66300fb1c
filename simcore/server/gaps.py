"""Inter-token latencies, collected as a weighted sample in bounded memory."""

from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.records import ITL_DTYPES

from .step import Step

__all__ = ["GapLog", "itl_frame"]

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]

_PENDING_RUNS = 50_000


class GapLog:
    """Gaps between consecutive tokens of a request, to three significant digits, with how many requests had them."""

    def __init__(self) -> None:
        self._runs: list[tuple[float, float, float, float, int, int, int]] = []
        self._values: _Floats = np.empty(0)
        self._counts: _Counts = np.empty(0, dtype=np.int64)

    def add(self, step: Step, decoded_at: float, fresh: int, now: float) -> None:
        """A run of decode steps ended now. Of its batch, ``fresh`` requests joined since the decode step that ended at
        ``decoded_at``: they waited for this run's first step only, the others since then."""
        runs = self._runs
        runs.append((decoded_at, step.started_at, step.first_s, now, step.decode_batch, fresh, step.steps))
        if len(runs) >= _PENDING_RUNS:
            self._condense()

    def add_equal(self, gap_s: float, count: int) -> None:
        """``count`` gaps of the same length."""
        self._runs.append((0.0, 0.0, gap_s, gap_s, count, 0, 1))

    def sample(self) -> tuple[_Floats, _Counts]:
        """Distinct gaps in seconds, ascending, and their counts."""
        self._condense()
        return self._values, self._counts

    def _condense(self) -> None:
        rows = np.fromiter(chain.from_iterable(self._runs), np.float64, 7 * len(self._runs)).reshape(-1, 7)
        decoded_at, started_at, first_s, now, batch, fresh, steps = rows.T
        self._runs.clear()
        first_end = started_at + first_s
        fresh = np.minimum(fresh, batch)
        # Of those that were there before, of the fresh ones, and of all in the steps after the first.
        gaps = np.concatenate([first_end - decoded_at, first_s, (now - first_end) / np.maximum(steps - 1, 1)])
        counts = np.concatenate([batch - fresh, fresh, (steps - 1) * batch]).astype(np.int64)
        some = counts > 0
        values = np.concatenate([self._values, _rounded(gaps[some])])
        self._values, self._counts = _merged(values, np.concatenate([self._counts, counts[some]]))


def itl_frame(logs: list[GapLog]) -> pd.DataFrame:
    """The gaps of several servers together (``ITL_DTYPES``)."""
    samples = [log.sample() for log in logs]
    values, counts = _merged(np.concatenate([v for v, _ in samples]), np.concatenate([c for _, c in samples]))
    return pd.DataFrame({"gap_s": values, "count": counts}).astype(ITL_DTYPES)


def _rounded(gaps: _Floats) -> _Floats:
    digits = 10.0 ** (2 - np.floor(np.log10(np.maximum(gaps, 1e-9))))
    return np.round(gaps * digits) / digits


def _merged(values: _Floats, counts: _Counts) -> tuple[_Floats, _Counts]:
    distinct, inverse = np.unique(values, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, inverse, counts)
    return distinct, sums
