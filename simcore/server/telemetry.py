"""What a server counts of itself."""

from simcore.profile_parts import ValidRange

from .request import ServerRequest
from .step_log import StepLog, StepTotals

__all__ = ["Telemetry"]


class Telemetry:
    """Counts since the start. The sums of latencies are for reports, which give the mean since the report before; a
    server that reports to nobody need not count them."""

    def __init__(self, valid_range: ValidRange | None) -> None:
        self.steps = StepLog(valid_range)
        self.cached_tokens = 0
        self.retractions = 0
        self.peak_running = 0
        self.ttft_sum_s = 0.0
        self.ttft_count = 0
        self.gap_sum_s = 0.0
        self.gaps = 0

    @property
    def totals(self) -> StepTotals:
        """What its steps add up to."""
        return self.steps.totals

    def count_first_token(self, request: ServerRequest, now: float) -> None:
        """A request's first token is computed."""
        self.ttft_sum_s += now - request.ready_at
        self.ttft_count += 1

    def count_gaps(self, total_s: float, gaps: int) -> None:
        """So many requests got a token, or several, each so long after the one before."""
        self.gap_sum_s += total_s
        self.gaps += gaps
