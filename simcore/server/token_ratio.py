"""The share of a request's possible output that admission reserves KV for (SGLang's NewTokenRatioTracker)."""

__all__ = ["NewTokenRatio"]


class NewTokenRatio:
    """Starts at ``min(0.7 * conservativeness, 1)``, falls to 14% of that over 600 decode steps, and jumps to an
    estimate after a retraction.

    Kept as a start and a count of steps, so that many steps at once give the very same value as one by one.
    """

    def __init__(self, conservativeness: float) -> None:
        self._init = min(0.7 * conservativeness, 1.0)
        self._min = self._init * 0.14
        self._decay = (self._init - self._min) / 600
        self._start = self._init
        self.decode_steps = 0
        """Decode steps launched since the start, without a retraction."""

    def current(self) -> float:
        """The ratio now."""
        ratio = self._start - self._decay * self.decode_steps
        if self.decode_steps == 0:
            # What a retraction set may be less than the least, until the next decode step.
            return ratio
        return max(self._min, ratio)

    def reset(self) -> None:
        """The server is idle."""
        self._start, self.decode_steps = self._init, 0

    def set_after_retraction(self, outputs_and_room: int, limits: int) -> None:
        """``outputs_and_room``: the survivors' output tokens plus room for 20 steps; ``limits``: their
        max_new_tokens."""
        self._start, self.decode_steps = min(1.0, outputs_and_room / (limits + 1)), 0
