"""Every step of a server: what it cost, and the gaps between tokens that it made."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.profile_parts import ValidRange
from simcore.records import ITL_DTYPES

from .step import Step

__all__ = ["StepLog", "StepTotals", "itl_frame"]

_Floats = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]

_COLUMNS = 11
_PACK_GAP = struct.Struct("2d").pack
_PACK = struct.Struct(f"{_COLUMNS}d").pack
_PENDING_BYTES = 4_000 * _COLUMNS * 8


@dataclass(slots=True)
class StepTotals:
    """Since the start. ``steps_out_of_range``: those for which the profile had to be extrapolated."""

    prefill_s: float = 0.0
    decode_s: float = 0.0
    mixed_s: float = 0.0
    steps: int = 0
    prefill_tokens: int = 0
    decode_tokens: int = 0
    steps_out_of_range: int = 0

    @property
    def busy_s(self) -> float:
        """Time in steps."""
        return self.prefill_s + self.decode_s + self.mixed_s


class StepLog:
    """One row a run of decode steps, summed up whenever many have come: memory is bounded, and a row costs little."""

    def __init__(self, valid_range: ValidRange | None) -> None:
        self._valid_range = valid_range
        self._max_prefill_tokens = math.inf if valid_range is None else valid_range.max_prefill_tokens
        self._rows = bytearray()
        self._gap_rows = bytearray()
        self._totals = StepTotals()
        self._gaps: _Floats = np.empty(0)
        self._counts: _Counts = np.empty(0, dtype=np.int64)

    def add_prefill(self, step: Step, now: float) -> None:
        """A step that nothing decodes in ended now."""
        totals, new_tokens = self._totals, step.new_tokens
        totals.steps += 1
        totals.prefill_s += now - step.started_at
        totals.prefill_tokens += new_tokens
        if new_tokens > self._max_prefill_tokens:
            totals.steps_out_of_range += 1

    def add(self, run: Step, now: float, decoded_at: float, fresh: Sequence[tuple[float, int]] = ()) -> None:
        """A run of decode steps, or a mixed step, ended now.

        Its decode batch has waited since the decode step that ended at ``decoded_at``, except for the ``fresh``: since
        when, and how many that got their first token then. NaN: its gaps come by ``add_gaps``.
        """
        joined_at, joined, earlier = 0.0, 0, 0
        if fresh:
            joined_at, joined = fresh[-1]
            for token_at, count in fresh[:-1]:
                earlier += count
                self.add_gaps(run.started_at + run.first_s - token_at, count)
        # Packed as bytes a row costs half as much as a tuple that numpy takes apart later.
        self._rows += _PACK(
            run.started_at,
            run.first_s,
            now,
            decoded_at,
            joined_at,
            run.steps,
            run.decode_batch,
            run.context_tokens,
            run.new_tokens,
            joined,
            earlier,
        )
        if len(self._rows) >= _PENDING_BYTES:
            self._sum_up()

    def add_gaps(self, gap_s: float, count: int) -> None:
        """``count`` gaps of the same length."""
        self._gap_rows += _PACK_GAP(gap_s, count)

    @property
    def totals(self) -> StepTotals:
        """The sums so far."""
        self._sum_up()
        return self._totals

    def gaps(self) -> tuple[_Floats, _Counts]:
        """Distinct gaps between consecutive tokens of a request in seconds, to three significant digits and ascending,
        and how many requests had them."""
        self._sum_up()
        return self._gaps, self._counts

    def _sum_up(self) -> None:
        if not self._rows and not self._gap_rows:
            return
        rows, self._rows = np.frombuffer(self._rows).reshape(-1, _COLUMNS), bytearray()
        started_at, first_s, now, decoded_at, joined_at, steps, batch, context, new_tokens, joined, earlier = rows.T
        others, self._gap_rows = np.frombuffer(self._gap_rows).reshape(-1, 2).T, bytearray()
        first_end, told = started_at + first_s, ~np.isnan(decoded_at)
        # Of those that decoded before, of those that joined last, and of all in the steps after the first.
        later_s = (now - first_end) / np.maximum(steps - 1, 1)
        gaps = np.concatenate([first_end - decoded_at, first_end - joined_at, later_s, others[0]])
        counts = np.concatenate([(batch - joined - earlier) * told, joined, (steps - 1) * batch * told, others[1]])
        self._merge(gaps[counts > 0], counts[counts > 0].astype(np.int64))

        totals, seconds = self._totals, now - started_at
        mixed = new_tokens > 0
        totals.decode_s += float(seconds[~mixed].sum())
        totals.mixed_s += float(seconds[mixed].sum())
        totals.steps += int(steps.sum())
        totals.prefill_tokens += int(new_tokens.sum())
        totals.decode_tokens += int((steps * batch).sum())
        if (valid := self._valid_range) is not None:
            # The context is judged by its mean over the batch.
            outside = (batch > valid.max_batch) | (new_tokens > valid.max_prefill_tokens)
            outside |= context > valid.max_context_tokens * batch
            totals.steps_out_of_range += int(steps[outside].sum())

    def _merge(self, gaps: _Floats, counts: _Counts) -> None:
        digits = 10.0 ** (2 - np.floor(np.log10(np.maximum(gaps, 1e-9))))
        rounded = np.concatenate([self._gaps, np.round(gaps * digits) / digits])
        self._gaps, self._counts = _merged(rounded, np.concatenate([self._counts, counts]))


def itl_frame(logs: list[StepLog]) -> pd.DataFrame:
    """The gaps of several servers together (``ITL_DTYPES``)."""
    samples = [log.gaps() for log in logs]
    values, counts = _merged(np.concatenate([v for v, _ in samples]), np.concatenate([c for _, c in samples]))
    return pd.DataFrame({"gap_s": values, "count": counts}).astype(ITL_DTYPES)


def _merged(values: _Floats, counts: _Counts) -> tuple[_Floats, _Counts]:
    distinct, inverse = np.unique(values, return_inverse=True)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, inverse, counts)
    return distinct, sums
