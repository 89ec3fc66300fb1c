"""A plain verdict on a calibration: how far its profile can be trusted, and why not further."""

from dataclasses import dataclass

from simcore.profile_measurement import Trust

from .fit_samples import Fitted
from .split import Split, was_disturbed

__all__ = ["Verdict", "judge"]

_GOOD = {"decode": 0.05, "prefill": 0.08, "mixed": 0.15}
_USABLE = {"decode": 0.10, "prefill": 0.15, "mixed": 0.30}
_WIDE = 0.05
_CLOCKS_APART = 0.05
_MUCH_DISTURBED = 0.2
_FEW = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reasons`` says what keeps it from being better; empty where nothing does."""

    trust: Trust
    reasons: tuple[str, ...]

    def sentence(self) -> str:
        """In plain words."""
        if not self.reasons:
            return "good: the fit predicts samples it has not seen"
        because = "; ".join(self.reasons)
        return f"do not trust, because {because}" if self.trust == "do not trust" else f"{self.trust}: {because}"


def judge(split: Split, fitted: Fitted, clock_ratio: float | None, missed: dict[str, str], *, busy: bool) -> Verdict:
    """By errors on held-back samples first, then by everything else that speaks against them."""
    bad: list[str] = []
    doubts: list[str] = []
    for term in ("decode", "prefill", "mixed"):
        found = getattr(fitted.held_back, term)
        if found is None:
            if term != "mixed":
                bad.append(f"no {term} samples were left to hold back")
            continue
        said = f"{term} steps are {found.mape:.1%} off on held-back samples"
        if found.mape > _USABLE[term]:
            bad.append(said)
        elif found.mape > _GOOD[term]:
            doubts.append(f"{said} (good is {_GOOD[term]:.0%})")
        width = getattr(fitted.confidence, term)
        if width is not None and width > _WIDE and term != "mixed":
            doubts.append(f"the 95% interval of {term} steps is {width:.1%} wide either way")
    doubts += _other_doubts(split, clock_ratio, missed, busy=busy)
    trust: Trust = "do not trust" if bad else "usable" if doubts else "good"
    return Verdict(trust, tuple(bad + doubts))


def _other_doubts(split: Split, clock_ratio: float | None, missed: dict[str, str], *, busy: bool) -> list[str]:
    doubts = []
    if len(split.decode) < _FEW or len(split.prefill) < _FEW:
        doubts.append(f"only {len(split.decode)} decode and {len(split.prefill)} prefill samples: give more --budget")
    if clock_ratio is not None and abs(clock_ratio - 1) > _CLOCKS_APART:
        doubts.append(f"the client saw decode steps {clock_ratio:.2f} times as long as the server counted")
    beside, samples = sum(map(was_disturbed, split.samples)), len(split.samples)
    if beside > _MUCH_DISTURBED * samples:
        doubts.append(f"{beside} of {samples} samples were taken while other work, or its host, used the machine")
    if missed:
        doubts.append(f"{len(missed)} points could not be measured ({next(iter(missed))}, ...)")
    if busy:
        doubts.append("other requests were allowed on the server (--allow-busy)")
    return doubts
