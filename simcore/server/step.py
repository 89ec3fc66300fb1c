"""One step of the GPU, or a run of decode steps that differ in nothing but the requests' lengths."""

from collections.abc import Sequence
from math import ceil, sqrt

from .request import ServerRequest

__all__ = ["Prefill", "Step"]


Prefill = tuple[ServerRequest, int, int, int]
"""One request's part of a prefill step: request, start, stop, retractions. Tokens ``start:stop`` of its sequence are
computed; ``retractions`` tells a request that was retracted while the step ran from one that was not."""


class Step:
    """``decode_batch`` requests decode over ``context_tokens`` in all, their new ones included, and ``prefills``
    prefill ``new_tokens`` in all; both in one step is a mixed step. ``changed``: its requests are other than the step's
    before.

    The scheduler fills these in; the server adds the time. ``steps`` equal decode steps run from ``started_at`` on: the
    first takes ``first_s``, each later one ``slope_s`` more than the one before, every request in it having grown by a
    token.
    """

    __slots__ = (
        "attended",
        "changed",
        "context_tokens",
        "decode_batch",
        "first_s",
        "new_tokens",
        "prefills",
        "slope_s",
        "started_at",
        "steps",
    )

    attended: float
    started_at: float
    first_s: float

    def __init__(self, decode_batch: int = 0, context_tokens: int = 0, prefills: Sequence[Prefill] = ()) -> None:
        self.decode_batch = decode_batch
        self.context_tokens = context_tokens
        self.prefills = prefills
        self.new_tokens = 0
        self.changed = False
        self.slope_s = 0.0
        self.steps = 1

    def end(self, steps: int) -> float:
        """When the first ``steps`` steps have ended."""
        return self.started_at + steps * (self.first_s + self.slope_s * (steps - 1) / 2)

    def steps_begun(self, at: float) -> int:
        """The first step that ends at ``at`` or later, counted from 1 and at most ``steps``."""
        first_s, slope_s, elapsed = self.first_s, self.slope_s, at - self.started_at
        if elapsed <= first_s:
            return 1
        # Solve slope/2 n^2 + (first - slope/2) n = elapsed, in the form that is stable for a small slope.
        linear = first_s - slope_s / 2
        root = 2 * elapsed / (linear + sqrt(linear * linear + 2 * slope_s * elapsed))
        steps = ceil(root)
        if not 1e-6 < steps - root < 0.999_999:
            # The root is rounded; close to a boundary the boundaries themselves decide.
            while steps > 1 and self.end(steps - 1) >= at:
                steps -= 1
            while self.end(steps) < at:
                steps += 1
        return min(self.steps, steps)
