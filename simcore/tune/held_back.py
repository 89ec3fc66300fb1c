"""The honest part: the default and the best found, on seeds that the search never saw."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from simcore.statistics import Difference, paired_difference_over_seeds

from .evaluate import Evaluator, Score
from .space import Setting

__all__ = ["HeldBack", "held_back"]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Both on the same seeds; ``difference`` is the best less the default, paired by seed, with a 95% t-interval."""

    seeds: tuple[int, ...]
    default: Score
    best: Score
    difference: Difference
    maximize: bool

    @property
    def gain(self) -> bool:
        """Whether the interval leaves no doubt that the best is better."""
        found = self.difference.absolute
        return found.low > 0 if self.maximize else found.high < 0

    @property
    def loss(self) -> bool:
        """Whether it leaves no doubt that it is worse."""
        found = self.difference.absolute
        return found.high < 0 if self.maximize else found.low > 0

    def verdict(self, metric: str) -> str:
        """One sentence."""
        absolute, relative = self.difference.absolute, self.difference.relative
        share = "" if math.isnan(relative.value) else f" ({relative.value:+.1%})"
        change = f"{metric} {self.default.mean:.4g} -> {self.best.mean:.4g}{share} on {len(self.seeds)} held-back seeds"
        interval = f"difference {absolute.value:+.4g}, 95% interval {absolute.low:+.4g} to {absolute.high:+.4g}"
        if self.gain:
            return f"Gain: {change}; {interval}."
        if self.loss:
            return f"Worse: {change}; {interval}. What the search found does not hold: keep the default."
        return (
            f"No gain shown: {change}; {interval}, which includes no difference. Keep the default, or test with more "
            f"held-back seeds."
        )

    def to_dict(self) -> dict[str, object]:
        """For ``tune.json``."""
        return {**asdict(self), "gain": self.gain, "loss": self.loss}


def held_back(
    default: Setting, best: Setting, evaluator: Evaluator, seeds: Sequence[int], *, maximize: bool
) -> HeldBack | None:
    """None where it was stopped."""
    scores = [evaluator.score(setting, seeds) for setting in (default, best)]
    ours, theirs = scores[1], scores[0]
    if ours is None or theirs is None:
        return None
    difference = paired_difference_over_seeds(ours.values, theirs.values)
    return HeldBack(tuple(seeds), theirs, ours, difference, maximize)
