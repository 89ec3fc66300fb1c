"""What a validation finds: errors of every setting, the order of the policies, and where the worst setting is off."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from simcore.compare.agreement import AGREEMENTS, Agreement, agreements
from simcore.compare.breakdown import Part, breakdown
from simcore.compare.order import Order, compare_orders
from simcore.compare.quantities import QUANTITIES
from simcore.compare.side import Side
from simcore.summary import json_safe

from .grid import Load
from .twins import LiveCell

__all__ = ["ORDERED", "VALIDATION_SCHEMA_VERSION", "Group", "LoadOrder", "Pairing", "Validation", "find"]

VALIDATION_SCHEMA_VERSION: Final = 1

ORDERED: Final = ("mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
"""The quantities by which policies are put in order."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """One cell in both worlds. ``simulated``: the draws."""

    live: LiveCell
    real: Side
    simulated: tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A policy under a load: its repeats, and how the worlds agree over them. ``parts`` are those of mean E2E."""

    policy: str
    load: Load
    pairings: tuple[Pairing, ...]
    agreements: dict[str, Agreement]
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return f"{self.policy}, {self.load}"

    @property
    def worlds(self) -> tuple[list[Side], list[Side]]:
        """The real runs, the simulated ones with all draws."""
        simulated = [side for one in self.pairings for side in one.simulated]
        return [one.real for one in self.pairings], simulated

    @property
    def draws(self) -> int:
        return len(self.pairings[0].simulated)


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """The order of the policies under a load, by one quantity."""

    load: Load
    quantity: str
    order: Order


@dataclass(frozen=True, slots=True)
class Validation:
    """All findings; groups and orders in the order of the grid."""

    scenario: str
    groups: tuple[Group, ...]
    orders: tuple[LoadOrder, ...]
    warnings: tuple[str, ...]

    @property
    def emulated(self) -> bool:
        return any(one.live.notes["emulated"] for group in self.groups for one in group.pairings)

    @property
    def invalid(self) -> list[str]:
        """Cells whose live run proves nothing, with the reason."""
        return [
            f"{one.live.cell}: {one.live.notes['invalid_because']}"
            for group in self.groups
            for one in group.pairings
            if not one.live.notes["valid"]
        ]

    def worst(self, name: str = "mean_e2e_s") -> Group:
        """The group in which a quantity is furthest off; one that could not be measured is not far off."""
        return max(self.groups, key=lambda group: _size(group.agreements[name].error.value))

    def to_dict(self) -> dict[str, Any]:
        """As JSON; NaN as None."""
        safe = json_safe(
            {
                "schema_version": VALIDATION_SCHEMA_VERSION,
                "scenario": self.scenario,
                "emulated": self.emulated,
                "groups": [_group_document(group) for group in self.groups],
                "orders": [
                    {"load": str(one.load), "quantity": one.quantity, **asdict(one.order)} for one in self.orders
                ],
                "worst": {name: str(self.worst(name)) for name in AGREEMENTS},
                "invalid": self.invalid,
                "warnings": self.warnings,
            }
        )
        assert isinstance(safe, dict)
        return safe


def find(scenario: str, pairings: Sequence[Pairing]) -> Validation:
    """From the cells, in the order of the grid."""
    by_setting: dict[tuple[str, Load], list[Pairing]] = {}
    for one in pairings:
        by_setting.setdefault((one.live.cell.policy.label, one.live.cell.load), []).append(one)
    groups = tuple(_group(policy, load, found) for (policy, load), found in by_setting.items())
    loads = dict.fromkeys(group.load for group in groups)
    orders = tuple(
        LoadOrder(load, name, _order([group for group in groups if group.load == load], name))
        for load in loads
        for name in ORDERED
    )
    return Validation(scenario, groups, orders, tuple(_mismatches(pairings)))


def _group(policy: str, load: Load, pairings: list[Pairing]) -> Group:
    real = [one.real for one in pairings]
    draws = list(zip(*(one.simulated for one in pairings), strict=True))
    parts = breakdown(real, [side for sides in draws for side in sides])
    return Group(policy, load, tuple(pairings), agreements(real, *draws), tuple(parts))


def _order(groups: Sequence[Group], name: str) -> Order:
    """Over the repeats that every policy has."""
    quantity = QUANTITIES[name]
    repeats = set.intersection(*({one.live.cell.repeat for one in group.pairings} for group in groups))
    real: dict[str, list[float]] = {}
    simulated: dict[str, list[float]] = {}
    for group in groups:
        common = [one for one in group.pairings if one.live.cell.repeat in repeats]
        real[group.policy] = [quantity.value(one.real) for one in common]
        simulated[group.policy] = [quantity.mean(one.simulated) for one in common]
    return compare_orders(real, simulated)


def _mismatches(pairings: Sequence[Pairing]) -> list[str]:
    """Where a server says of itself what the profile does not say of it."""
    found: dict[str, None] = {}
    for one in pairings:
        real, simulated = one.real.result.servers, one.simulated[0].result.servers
        for mine, its in zip(real.to_dict("records"), simulated.to_dict("records"), strict=True):
            for name in ("kv_tokens_capacity", "max_running_requests"):
                if mine[name] and mine[name] != its[name]:
                    found[f"server {mine['server_id']} has {name} {mine[name]:,}, its profile {its[name]:,}"] = None
    return list(found)


def _size(error: float) -> float:
    return 0.0 if math.isnan(error) else abs(error)


def _group_document(group: Group) -> dict[str, Any]:
    real, simulated = group.worlds
    return {
        "policy": group.policy,
        "load": str(group.load),
        "load_value": group.load.value,
        "repeats": [one.live.cell.repeat for one in group.pairings],
        "draws": group.draws,
        "errors": {name: asdict(one) for name, one in group.agreements.items()},
        "breakdown": [{**asdict(part), "error_s": part.error_s} for part in group.parts],
        "counts": {"real": counts(real), "simulated": counts(simulated)},
        "live_valid": [one.live.notes["valid"] for one in group.pairings],
    }


def counts(sides: Sequence[Side]) -> dict[str, float]:
    """Means over the repeats of what explains latencies."""
    names = ("cache_hit_rate", "retractions", "peak_kv_share", "concurrency", "imbalance_requests", "lost_share")
    found = {name: float(np.mean([QUANTITIES[name].value(side) for side in sides])) for name in names}
    found["peak_running"] = float(np.mean([side.result.servers["peak_running"].max() for side in sides]))
    found["mean_running"] = float(np.mean([_mean_running(side) for side in sides]))
    return found


def _mean_running(side: Side) -> float:
    """Of a server, over its samples."""
    return float(side.result.timeline["running"].mean()) if len(side.result.timeline) else math.nan
