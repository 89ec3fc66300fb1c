"""What a server counts of itself."""

from dataclasses import dataclass, field

from simcore.profile_parts import ValidRange

from .gaps import GapLog
from .request import ServerRequest
from .step import Step

__all__ = ["Telemetry"]


@dataclass(slots=True)
class Telemetry:
    """Totals since the start; the sums of latencies are for reports, which give the mean since the report before."""

    valid_range: ValidRange | None
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
    gaps: GapLog = field(default_factory=GapLog)

    @property
    def generated_tokens(self) -> int:
        """Output tokens: one out of each prefill, one of each decode row and step."""
        return self.decode_tokens + self.ttft_count

    @property
    def busy_s(self) -> float:
        """Time in steps."""
        return self.prefill_s + self.decode_s + self.mixed_s

    def count(self, step: Step, duration_s: float, kv_tokens_used: int) -> None:
        """A step or run of steps took ``duration_s``; ``kv_tokens_used`` is as it ended.

        Where the profile had to be extrapolated for it is noted; the context is judged by its mean over the batch.
        """
        batch, steps = step.decode_batch, step.steps
        if not step.prefills:
            self.decode_s += duration_s
        elif batch:
            self.mixed_s += duration_s
        else:
            self.prefill_s += duration_s
        self.steps += steps
        self.decode_tokens += steps * batch
        self.prefill_tokens += step.new_tokens
        if kv_tokens_used > self.peak_kv_tokens:
            self.peak_kv_tokens = kv_tokens_used
        valid = self.valid_range
        if valid is not None and (
            batch > valid.max_batch
            or step.new_tokens > valid.max_prefill_tokens
            or step.context_tokens > valid.max_context_tokens * batch
        ):
            self.steps_out_of_range += steps

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
