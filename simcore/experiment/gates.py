"""Gates: conditions on a comparison's numbers under which a run counts as failed."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from simcore.errors import UserError, did_you_mean
from simcore.report import Comparison
from simcore.report.comparison import Contender

from .metric_values import NEEDS_SLO, metric_names, metric_value

__all__ = ["SIGNS", "Gate", "GateFailure", "failures", "parse_gate"]

SIGNS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


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


def parse_gate(text: str, *, has_slo: bool) -> Gate:
    """``p99_ttft_s>0.2``. Raises UserError for what is none, or needs an SLO where the scenario has none."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
    try:
        limit = float(match[3]) if match else math.nan
    except ValueError:
        limit = math.nan
    if match is None or math.isnan(limit):
        raise UserError(f"--fail-on {text}: give it as METRIC>VALUE, for example p99_ttft_s>0.2")
    if match[1] not in metric_names():
        known = f"{', '.join(metric_names())}{did_you_mean(match[1], metric_names())}"
        raise UserError(f"--fail-on {text}: unknown metric {match[1]!r}; known are {known}")
    if match[1] in NEEDS_SLO and not has_slo:
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
    return sum(metric_value(metric, run) for run in contender.runs) / len(contender.runs)
