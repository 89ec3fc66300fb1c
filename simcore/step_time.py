"""Step times compiled for speed: a lookup by batch size for decode, a few multiplications for prefill."""

import bisect
from collections.abc import Iterable
from copy import copy

from .kv_capacity import decode_graph_buckets
from .launch import SchedulerSettings
from .profile_parts import DecodeSteps, StepCoefficients

__all__ = ["StepTimes"]


_PREFILL_SECONDS = (
    *("_base_s", "_below_knee_s", "_knee_base_s", "_per_token_s", "_attended_s", "_cached_s", "_cached_pair_s"),
    *("_floor_s", "_overhead_s"),
)


class StepTimes:
    """The step-time model of one server.

    A decode step of batch ``B`` with total context ``C`` (tokens attended, the current ones included) takes
    ``decode_base_s[B] + decode_context_s[B] * C`` seconds, ``B`` from 1 to ``max_running_requests`` (index 0 is 0.0: no
    step). Padding to SGLang's graph buckets, the floor and the overhead a step are in the base.
    """

    __slots__ = (
        "_attended_s",
        "_base_s",
        "_below_knee_s",
        "_cached_pair_s",
        "_cached_s",
        "_floor_s",
        "_knee",
        "_knee_base_s",
        "_mixed_context_s",
        "_overhead_s",
        "_per_token_s",
        "decode_base_s",
        "decode_context_s",
        "has_cached_terms",
    )

    decode_base_s: list[float]
    decode_context_s: list[float]
    has_cached_terms: bool

    def __init__(self, steps: StepCoefficients, settings: SchedulerSettings) -> None:
        prefill = steps.prefill
        self._base_s = prefill.base_s
        self._below_knee_s = prefill.below_knee_s
        self._per_token_s = prefill.per_token_s
        self._knee = prefill.knee_tokens
        self._knee_base_s = prefill.base_s + (prefill.below_knee_s - prefill.per_token_s) * prefill.knee_tokens
        self._attended_s = prefill.per_attended_s
        self._cached_s = prefill.per_cached_s
        self._cached_pair_s = prefill.per_cached_pair_s
        self.has_cached_terms = prefill.per_cached_s > 0 or prefill.per_cached_pair_s > 0
        self._floor_s = steps.floor_s
        self._overhead_s = steps.overhead_s
        self._compile_decode(steps, settings)

    def _compile_decode(self, steps: StepCoefficients, settings: SchedulerSettings) -> None:
        """Fill the lists. Padding adds rows to the dense layers, not context: only the base is that of the bucket."""
        self.decode_base_s, self.decode_context_s, self._mixed_context_s = [0.0], [0.0], [0.0]
        buckets = decode_graph_buckets(settings.cuda_graph_max_batch)
        for batch in range(1, settings.max_running_requests + 1):
            base_s, _ = _interpolate(steps.decode, _padded(batch, buckets))
            _, context_s = _interpolate(steps.decode, batch)
            self.decode_base_s.append(max(base_s, steps.floor_s) + steps.overhead_s)
            self.decode_context_s.append(context_s)
            self._mixed_context_s.append(steps.mixed.decode_context_ratio * context_s)

    def slowed(self, decode: float, prefill: float) -> "StepTimes":
        """The same where steps take so many times as long; mixed ones as prefills."""
        slowed = copy(self)
        slowed.decode_base_s = [decode * base_s for base_s in self.decode_base_s]
        slowed.decode_context_s = [decode * context_s for context_s in self.decode_context_s]
        slowed._mixed_context_s = [prefill * context_s for context_s in self._mixed_context_s]
        for name in _PREFILL_SECONDS:
            setattr(slowed, name, prefill * getattr(self, name))
        return slowed

    def prefill_s(self, new_tokens: int, attended: float) -> float:
        """Seconds of a prefill step of ``new_tokens`` in all; ``attended`` is the sum over its chunks of
        ``s * (h + s / 2)``, with ``s`` new tokens after ``h`` that are in the KV cache."""
        if new_tokens <= self._knee:
            tokens_s = self._base_s + self._below_knee_s * new_tokens
        else:
            tokens_s = self._knee_base_s + self._per_token_s * new_tokens
        if tokens_s < self._floor_s:
            tokens_s = self._floor_s
        return tokens_s + self._attended_s * attended + self._overhead_s

    def mixed_s(self, new_tokens: int, attended: float, decode_batch: int, decode_context: int) -> float:
        """Seconds of a prefill step as above that carries ``decode_batch`` rows of ``decode_context`` tokens in all."""
        rows_s = self.prefill_s(new_tokens + decode_batch, attended)
        return rows_s + self._mixed_context_s[decode_batch] * decode_context

    def cached_s(self, starts: Iterable[int]) -> float:
        """Seconds that the prefill chunks of a step add for what is in the KV cache before each, in tokens."""
        return sum(start * (self._cached_s + self._cached_pair_s * start / 2) for start in starts)


def _padded(batch: int, buckets: list[int]) -> int:
    """The batch that runs: the next graph bucket, or the batch itself above the largest (eager, no padding)."""
    index = bisect.bisect_left(buckets, batch)
    return buckets[index] if index < len(buckets) else batch


def _interpolate(decode: DecodeSteps, batch: int) -> tuple[float, float]:
    """(base_s, context_s) at ``batch``: linear between the table's batches and constant below the first. Above the last
    the base goes on at its last slope, or stays where that falls; the cost per token of context stays, as its small
    slope is noise."""
    batches, base_s, context_s = decode.batches, decode.base_s, decode.context_s
    if batch <= batches[0] or len(batches) == 1:
        return base_s[0], context_s[0]
    right = min(bisect.bisect_left(batches, batch), len(batches) - 1)
    left = right - 1
    share = (batch - batches[left]) / (batches[right] - batches[left])
    rise_s = base_s[right] - base_s[left]
    base = base_s[left] + share * rise_s if share <= 1.0 else base_s[right] + (share - 1.0) * max(rise_s, 0.0)
    return base, context_s[left] + min(share, 1.0) * (context_s[right] - context_s[left])
