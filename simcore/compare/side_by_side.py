"""Runs side by side: every number of each, and how it differs from the first run's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from simcore import statistics
from simcore.report.comparison import SIGNIFICANCE
from simcore.statistics import Difference
from simcore.summary import json_safe

from .difference import distance
from .quantities import Quantity, quantities_of
from .side import Side

__all__ = ["SIDES_SCHEMA_VERSION", "Row", "SideBySide", "Versus", "side_by_side"]

SIDES_SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Versus:
    """A run less the first; ``p_value`` is Holm's over the runs compared with the first."""

    difference: Difference
    paired: bool
    p_value: float

    @property
    def significant(self) -> bool:
        return self.p_value < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity: a value a run, and a ``Versus`` for each run but the first."""

    quantity: Quantity
    values: tuple[float, ...]
    versus: tuple[Versus, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """``sides[0]`` is what the others are compared with."""

    sides: tuple[Side, ...]
    rows: tuple[Row, ...]
    confidence: float

    @property
    def paired(self) -> tuple[bool, ...]:
        """For each run but the first: whether it had the first's requests."""
        return tuple(versus.paired for versus in self.rows[0].versus)

    def to_dict(self) -> dict[str, object]:
        """As JSON; NaN as None."""
        first, *others = (side.label for side in self.sides)
        safe = json_safe(
            {
                "schema_version": SIDES_SCHEMA_VERSION,
                "reference": first,
                "confidence": self.confidence,
                "runs": [{"label": side.label, "summary": side.summary.to_dict()} for side in self.sides],
                "same_workload": dict(zip(others, self.paired, strict=True)),
                "metrics": [
                    {
                        "name": row.quantity.name,
                        "unit": row.quantity.unit,
                        "values": dict(zip((first, *others), row.values, strict=True)),
                        "differences": {
                            label: {
                                **asdict(versus.difference),
                                "p_value": versus.p_value,
                                "significant": versus.significant,
                            }
                            for label, versus in zip(others, row.versus, strict=True)
                        },
                    }
                    for row in self.rows
                ],
            }
        )
        assert isinstance(safe, dict)
        return safe


def side_by_side(sides: Sequence[Side], *, confidence: float = 0.95) -> SideBySide:
    """Every quantity that the runs have; those that none of them could measure are left out."""
    rows = [_row(quantity, sides, confidence) for quantity in quantities_of(*sides)]
    known = tuple(row for row in rows if not all(map(math.isnan, row.values)))
    return SideBySide(tuple(sides), known, confidence)


def _row(quantity: Quantity, sides: Sequence[Side], confidence: float) -> Row:
    first, *others = sides
    found = [distance(quantity, [side], [first], confidence) for side in others]
    p_values = statistics.holm([one.difference.p_value for one in found])
    versus = tuple(Versus(one.difference, one.paired, p) for one, p in zip(found, p_values, strict=True))
    return Row(quantity, tuple(quantity.value(side) for side in sides), versus)
