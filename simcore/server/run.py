"""A run of decode steps that differ in nothing but the requests' lengths, or any single step."""

import math
from dataclasses import dataclass

from .step import Step

__all__ = ["Run"]


@dataclass(slots=True)
class Run:
    """``steps`` steps from ``started_at`` on: the first takes ``first_s``, each later one ``slope_s`` more than the one
    before it, because every request in it has grown by a token."""

    step: Step
    started_at: float
    first_s: float
    slope_s: float
    steps: int = 1

    def end(self, steps: int) -> float:
        """When the first ``steps`` steps have ended."""
        return self.started_at + steps * self.first_s + self.slope_s * (steps * (steps - 1) // 2)

    @property
    def last_start(self) -> float:
        """When the run's last step begins."""
        return self.end(self.steps - 1) if self.steps > 1 else self.started_at

    def steps_begun(self, at: float) -> int:
        """The first step that ends at ``at`` or later, counted from 1 and at most ``steps``."""
        elapsed = at - self.started_at
        if elapsed <= self.first_s:
            return 1
        # Solve slope/2 n^2 + (first - slope/2) n = elapsed, in the form that is stable for a small slope.
        linear = self.first_s - self.slope_s / 2
        guess = 2 * elapsed / (linear + math.sqrt(linear * linear + 2 * self.slope_s * elapsed))
        steps = min(max(math.ceil(guess), 1), self.steps)
        # The root is rounded; the boundaries themselves decide.
        while steps > 1 and self.end(steps - 1) >= at:
            steps -= 1
        while steps < self.steps and self.end(steps) < at:
            steps += 1
        return steps
