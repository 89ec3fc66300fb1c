"""Numbers and findings as people read them. Milliseconds appear here and nowhere before."""

import math
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from simcore.measures import Measure
from simcore.report.comparison import Against, Comparison, Contender
from simcore.statistics import Estimate

__all__ = [
    "UNKNOWN",
    "Unit",
    "interval",
    "latency_unit",
    "number",
    "percent",
    "signed",
    "signed_interval",
    "signed_number",
    "unit_named",
    "unit_of",
    "verdict",
    "warnings",
]

UNKNOWN: Final = "-"
_SECONDS_FROM: Final = 10.0
_PERCENTAGE: Final = re.compile(r"(\d+(?:\.\d+)?)%")


class Unit(NamedTuple):
    """What a column's or axis's numbers are in: its name and how many of it make one of the measure's own unit."""

    name: str
    scale: float

    def format(self, value: float) -> str:
        return percent(value) if self.name == "%" else number(value * self.scale)


def number(value: float) -> str:
    """Three significant digits, more where the whole part has them: 0.0123, 1.23, 12.3, 123, 12,345."""
    if not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def signed_number(value: float) -> str:
    """As ``number``, with its sign."""
    return f"+{number(value)}" if value > 0 else number(value)


def percent(share: float) -> str:
    """A share as a percentage: 0.04%, 0.4%, 3.1%, 31%, 99.97%, and 100% only if it is all."""
    if not math.isfinite(share):
        return UNKNOWN
    if 0.995 <= share < 1:
        return f"{min(100 * share, 99.99):.2f}%"
    if 0 < abs(share) < 0.0005:
        return f"{100 * share:.2f}%".replace("-0.00", "0.00")
    return f"{100 * share:.1f}%" if 0 < abs(share) < 0.0995 else f"{100 * share:.0f}%"


def latency_unit(values_s: Iterable[float]) -> Unit:
    """Milliseconds, or seconds where the largest has ten of them: one unit for a whole column or axis."""
    largest = max((value for value in values_s if math.isfinite(value)), default=0.0)
    return Unit("s", 1.0) if largest >= _SECONDS_FROM else Unit("ms", 1000.0)


def unit_of(measure: Measure, values: Iterable[float]) -> Unit:
    """The unit in which to show ``values`` of a measure."""
    return unit_named(measure.unit, values)


def unit_named(unit: str, values: Iterable[float]) -> Unit:
    """By the name of the unit that the values are in: seconds, a share, or one that is shown as it is."""
    match unit:
        case "s":
            return latency_unit(values)
        case "share":
            return Unit("%", 100.0)
        case _:
            return Unit(unit, 1.0)


def signed(share: float) -> str:
    """A difference as a percentage, with its sign."""
    return f"+{percent(share)}" if share > 0 else percent(share)


def signed_interval(low: float, high: float) -> str:
    """The two ends of a difference; empty where the interval is unknown."""
    return f"{signed(low).removesuffix('%')} to {signed(high)}" if low == low else ""


def interval(estimate: Estimate, unit: Unit) -> str:
    """Its two ends in ``unit``, without the unit's name; empty where the interval is unknown."""
    if not math.isfinite(estimate.low):
        return ""
    return f"{unit.format(estimate.low)} to {unit.format(estimate.high)}"


def verdict(comparison: Comparison) -> list[str]:
    """The findings in sentences, the winner first; then what limits them."""
    measure, best = comparison.rank_by, comparison.best
    lines = [_best_line(comparison)]
    tied = [rival.policy for rival in comparison.contenders[1:] if rival.against_best and not _known_loser(rival)]
    if tied:
        lines.append(f"{_and([best.policy, *tied])} are not significantly different.")
    lines += [
        f"{rival.policy} {_distance(measure, rival.against_best, comparison.confidence)}."
        for rival in comparison.contenders[1:]
        if rival.against_best and _known_loser(rival)
    ]
    lines += [
        f"{contender.policy} lost {percent(contender.lost())} of the requests (rejected, failed or cancelled): "
        "its latencies are those of the rest."
        for contender in comparison.contenders
        if contender.lost() > 0
    ]
    return lines


def warnings(comparison: Comparison) -> list[tuple[str, str]]:
    """(which runs, what they warn of). What differs in percentages only is said once, with their range."""
    runs = [(contender.policy, run.summary) for contender in comparison.contenders for run in contender.runs]
    found: dict[str, list[tuple[str, str]]] = {}
    for policy, summary in runs:
        for warning in summary.warnings:
            where = f"{policy}, seed {summary.seed}"
            found.setdefault(_PERCENTAGE.sub("%", warning), []).append((where, warning))
    return [
        (same[0][0] if len(same) == 1 else f"{len(same)} of {len(runs)} runs", _ranged([text for _, text in same]))
        for same in found.values()
    ]


def _ranged(texts: list[str]) -> str:
    """Texts that differ in percentages only as one, with the least and the greatest of each."""
    columns = iter(list(zip(*(_PERCENTAGE.findall(text) for text in texts), strict=True)))

    def span(_: re.Match[str]) -> str:
        shares = sorted(next(columns), key=float)
        return f"{shares[0]}%" if shares[0] == shares[-1] else f"{shares[0]}% to {shares[-1]}%"

    return _PERCENTAGE.sub(span, texts[0])


def _best_line(comparison: Comparison) -> str:
    measure, best = comparison.rank_by, comparison.best
    estimate = best.estimates[measure.name]
    unit = unit_of(measure, [estimate.value])
    name = "" if unit.name == "%" else f" {unit.name}"
    ends = interval(estimate, unit)
    sure = f" ({comparison.confidence:.0%} CI {ends})" if ends else ""
    rank = f"{best.policy} is best: " if len(comparison.contenders) > 1 else f"{best.policy}: "
    return f"{rank}{measure.label} {unit.format(estimate.value)}{name}{sure}."


def _known_loser(rival: Contender) -> bool:
    return rival.against_best is not None and rival.against_best.significant


def _distance(measure: Measure, against: Against, confidence: float) -> str:
    relative, absolute = against.relative, against.absolute
    if math.isfinite(relative.low):
        by, low, high = percent(abs(relative.value)), relative.low, relative.high
        ends = f"{percent(low)} to {percent(high)}" if low >= 0 else f"{percent(-high)} to {percent(-low)}"
        return f"is {by} {'worse' if measure.higher_is_better else 'slower'} ({confidence:.0%} CI {ends})"
    unit = unit_of(measure, [abs(absolute.value)])
    direction = "below" if measure.higher_is_better else "above"
    distance, ends = f"{unit.format(abs(absolute.value))} {unit.name}", interval(absolute, unit)
    return f"is {distance} {direction} it ({confidence:.0%} CI {ends})"


def _and(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
