"""Gates: conditions on a comparison's numbers under which a run counts as failed."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from simcore import statistics
from simcore.errors import UserError, did_you_mean
from simcore.measures import find_measure, measure_names
from simcore.metrics import QUANTILES
from simcore.report import Comparison
from simcore.report.comparison import Contender

__all__ = ["SIGNS", "Gate", "GateFailure", "failures", "gate_metrics", "parse_gate"]

SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_OF_THE_SUMMARY: Final = (
    "request_throughput_rps",
    "input_throughput_tps",
    "output_throughput_tps",
    "concurrency",
    "cache_hit_rate",
    "utilisation",
    "retractions",
)
_GAPS: Final = {f"{statistic}_itl_s": statistic for statistic in ("mean", *QUANTILES)}
_NEEDS_SLO: Final = ("goodput_rps", "slo_attainment")


@dataclass(frozen=True, slots=True)
class Gate:
    """``metric`` compared with ``limit`` by ``sign``; where it holds, the gate fails."""

    metric: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.limit:g}"


@dataclass(frozen=True, slots=True)
class GateFailure:
    """A gate that one policy failed with ``value``; NaN: there was nothing to measure, which is no pass."""

    gate: Gate
    policy: str
    value: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"{self.policy}: {self.gate.metric} could not be measured, so the gate {self.gate} fails"
        return f"{self.policy}: {self.gate.metric} is {self.value:.6g}, so the gate {self.gate} fails"


def gate_metrics() -> list[str]:
    """Every metric that a gate can name."""
    return [*measure_names(), *_GAPS, *_OF_THE_SUMMARY, "lost_share"]


def parse_gate(text: str, *, has_slo: bool) -> Gate:
    """``p99_ttft_s>0.2``. Raises UserError for what is none, or needs an SLO where the scenario has none."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    try:
        limit = float(match[3]) if match else math.nan
    except ValueError:
        limit = math.nan
    if match is None or math.isnan(limit):
        raise UserError(f"--fail-on {text}: give it as METRIC>VALUE, for example p99_ttft_s>0.2")
    if match[1] not in gate_metrics():
        known = f"{', '.join(gate_metrics())}{did_you_mean(match[1], gate_metrics())}"
        raise UserError(f"--fail-on {text}: unknown metric {match[1]!r}; known are {known}")
    if match[1] in _NEEDS_SLO and not has_slo:
        raise UserError(f"--fail-on {text}: {match[1]} needs an slo, and the scenario sets none")
    return Gate(match[1], match[2], limit)


def failures(gates: Sequence[Gate], comparison: Comparison) -> list[GateFailure]:
    """The gates that fail, for every policy compared; values are means over the seeds."""
    failed = []
    for gate in gates:
        for contender in comparison.contenders:
            value = _value(gate.metric, contender)
            if math.isnan(value) or SIGNS[gate.sign](value, gate.limit):
                failed.append(GateFailure(gate, contender.policy, value))
    return failed


def _value(metric: str, contender: Contender) -> float:
    if metric == "lost_share":
        return contender.lost()
    if metric in _OF_THE_SUMMARY:
        return contender.mean(metric)
    if metric in _GAPS:
        return _mean([getattr(run.summary.latencies["itl_s"], _GAPS[metric]) for run in contender.runs])
    measure = find_measure(metric)
    return _mean(
        [statistics.statistic(measure.values(run.summary, run.observed), measure.quantile) for run in contender.runs]
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
