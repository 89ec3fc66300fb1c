"""Gates of a validation: how far off is too far."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from simcore.compare.agreement import AGREEMENTS
from simcore.errors import UserError, did_you_mean
from simcore.experiment.gates import SIGNS

from .findings import ORDERED, Validation
from .grid import Load

__all__ = ["ErrorGate", "ErrorGateFailure", "failures", "parse_gate"]

_TAU: Final = "tau_"
_INVALID: Final = "invalid_runs"
_GATE: Final = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([^\s]+)\s*(?:(below|at|from)\s+([\d.]+))?\s*")


@dataclass(frozen=True, slots=True)
class ErrorGate:
    """Fails where ``metric`` compared with ``limit`` by ``sign`` holds under any load that ``where`` and ``load`` let
    through. A metric of ``AGREEMENTS`` stands for the size of its error, ``tau_`` before one of ``ORDERED`` for the
    order of the policies, ``invalid_runs`` for the number of live runs that prove nothing."""

    metric: str
    sign: str
    limit: float
    where: str | None = None
    load: float = 0.0

    def __str__(self) -> str:
        scope = f" {self.where} {self.load:g}" if self.where else ""
        return f"{self.metric}{self.sign}{self.limit:g}{scope}"

    def covers(self, load: Load) -> bool:
        """Whether it is for this load."""
        match self.where:
            case "below":
                return load.value < self.load
            case "at":
                return load.value == self.load
            case "from":
                return load.value >= self.load
            case _:
                return True


@dataclass(frozen=True, slots=True)
class ErrorGateFailure:
    """A gate that failed, where, and with what; NaN: it could not be measured, which is no pass."""

    gate: ErrorGate
    setting: str
    value: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"{self.setting}: {self.gate.metric} could not be measured, so the gate {self.gate} fails"
        return f"{self.setting}: {self.gate.metric} is {self.value:.4g}, so the gate {self.gate} fails"


def parse_gate(text: str) -> ErrorGate:
    """``p99_ttft_s>0.2 below 20``. Raises UserError for what is none."""
    match = _GATE.fullmatch(text)
    try:
        limit = float(match[3]) if match else math.nan
    except ValueError:
        limit = math.nan
    if match is None or math.isnan(limit):
        raise UserError(
            f"--fail-on {text}: give it as METRIC>VALUE, for example mean_e2e_s>0.05, and if need be a load: "
            "p99_ttft_s>0.2 below 20"
        )
    known = [*AGREEMENTS, *(f"{_TAU}{name}" for name in ORDERED), _INVALID]
    if match[1] not in known:
        listed = f"{', '.join(known)}{did_you_mean(match[1], known)}"
        raise UserError(f"--fail-on {text}: unknown metric {match[1]!r}; known are {listed}")
    return ErrorGate(match[1], match[2], limit, match[4], float(match[5] or 0))


def failures(gates: Sequence[ErrorGate], validation: Validation) -> list[ErrorGateFailure]:
    """Those that fail, in every setting in which they do. An order in which all are ties is kept."""
    failed = []
    for gate in gates:
        for setting, value, must_be_known in _values(gate, validation):
            unknown = math.isnan(value)
            if (unknown and must_be_known) or (not unknown and SIGNS[gate.sign](value, gate.limit)):
                failed.append(ErrorGateFailure(gate, setting, value))
    return failed


def _values(gate: ErrorGate, validation: Validation) -> list[tuple[str, float, bool]]:
    """(setting, value, whether it must be known)"""
    if gate.metric == _INVALID:
        return [("all cells", float(len(validation.invalid)), True)]
    if gate.metric.startswith(_TAU):
        name = gate.metric.removeprefix(_TAU)
        return [
            (str(one.load), one.order.tau, False)
            for one in validation.orders
            if one.quantity == name and gate.covers(one.load)
        ]
    return [
        (str(group), abs(group.agreements[gate.metric].error.value), True)
        for group in validation.groups
        if gate.covers(group.load)
    ]
