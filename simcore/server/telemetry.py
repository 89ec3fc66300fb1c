"""What a server counts of itself."""

from array import array
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from simcore.records import ITL_DTYPES

from .request import ServerRequest
from .step import Step

__all__ = ["Telemetry", "itl_frame"]


@dataclass(slots=True)
class Telemetry:
    """Totals since the start; the sums of latencies are for reports, which give the mean since the report before."""

    prefill_s: float = 0.0
    decode_s: float = 0.0
    mixed_s: float = 0.0
    steps: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    retractions: int = 0
    peak_kv_tokens: int = 0
    peak_running: int = 0
    ttft_sum_s: float = 0.0
    ttft_count: int = 0
    tpot_sum_s: float = 0.0
    tpot_count: int = 0
    steps_out_of_range: int = 0
    gaps_s: "array[float]" = field(default_factory=lambda: array("d"))
    gap_counts: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def generated_tokens(self) -> int:
        """Output tokens: one out of each prefill, one of each decode row and step."""
        return self.decode_tokens + self.ttft_count

    def count_run(self, step: Step, steps: int, duration_s: float) -> None:
        """``steps`` equal steps took ``duration_s`` in all."""
        self.steps += steps
        self.decode_tokens += steps * step.decode_batch
        if not step.prefills:
            self.decode_s += duration_s
            return
        self.prefill_tokens += step.new_tokens
        if step.decode_batch:
            self.mixed_s += duration_s
        else:
            self.prefill_s += duration_s

    def count_gaps(self, gap_s: float, count: int) -> None:
        """``count`` requests waited ``gap_s`` for their next token."""
        self.gaps_s.append(gap_s)
        self.gap_counts.append(count)

    def count_peaks(self, kv_tokens_used: int, running: int) -> None:
        """The state after a step was formed."""
        if kv_tokens_used > self.peak_kv_tokens:
            self.peak_kv_tokens = kv_tokens_used
        if running > self.peak_running:
            self.peak_running = running

    def count_first_token(self, request: ServerRequest, now: float) -> None:
        """A request's first token is computed."""
        self.cached_tokens += request.cached_tokens
        self.ttft_sum_s += now - request.ready_at
        self.ttft_count += 1

    def count_end(self, request: ServerRequest, now: float) -> None:
        """A request is complete."""
        if request.output_tokens > 1:
            self.tpot_sum_s += (now - request.first_token_at) / (request.output_tokens - 1)
            self.tpot_count += 1


def itl_frame(telemetries: list[Telemetry]) -> pd.DataFrame:
    """The gaps of several servers as a weighted sample (``ITL_DTYPES``), to three significant digits."""
    gaps = np.concatenate([np.frombuffer(t.gaps_s, dtype=np.float64) for t in telemetries])
    counts = np.concatenate([np.frombuffer(t.gap_counts, dtype=np.int64) for t in telemetries])
    kept = counts > 0
    gaps, counts = gaps[kept], counts[kept]
    digits = 10.0 ** (2 - np.floor(np.log10(np.maximum(gaps, 1e-9))))
    values, inverse = np.unique(np.round(gaps * digits) / digits, return_inverse=True)
    sums = np.bincount(inverse, weights=counts, minlength=len(values))
    return pd.DataFrame({"gap_s": values, "count": sums.astype(np.int64)}).astype(ITL_DTYPES)
