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

    def count_prefill(self, step: Step, duration_s: float, kv_tokens_used: int, running: int) -> None:
        """A prefill or mixed step took ``duration_s``; ``kv_tokens_used`` and ``running`` requests are as it ended."""
        self.prefill_tokens += step.new_tokens
        self.decode_tokens += step.decode_batch
        if step.decode_batch:
            self.mixed_s += duration_s
        else:
            self.prefill_s += duration_s
        if running > self.peak_running:
            self.peak_running = running
        self._count_run(step, kv_tokens_used)

    def count_decode(self, step: Step, duration_s: float, kv_tokens_used: int) -> None:
        """A run of decode steps took ``duration_s``; ``kv_tokens_used`` is as it ended."""
        self.decode_tokens += step.steps * step.decode_batch
        self.decode_s += duration_s
        self._count_run(step, kv_tokens_used)

    def _count_run(self, step: Step, kv_tokens_used: int) -> None:
        """Whether the profile had to be extrapolated for it: the context is judged by its mean over the batch."""
        self.steps += step.steps
        if kv_tokens_used > self.peak_kv_tokens:
            self.peak_kv_tokens = kv_tokens_used
        valid, batch = self.valid_range, step.decode_batch
        if valid is not None and (
            step.new_tokens > valid.max_prefill_tokens
            or batch > valid.max_batch
            or step.context_tokens > valid.max_context_tokens * batch
        ):
            self.steps_out_of_range += step.steps

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
