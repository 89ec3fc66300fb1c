"""The plots of a validation: real and simulated values over the loads, and the worst setting laid over itself."""

from typing import Final

import numpy as np

from simcore.compare.overlay import overlays
from simcore.compare.quantities import QUANTITIES
from simcore.report.drawing import new_figure, render, series_colours, style, tidy
from simcore.report.wording import unit_named

from .findings import Group, Validation

__all__ = ["validation_plots"]

_DRAWN: Final = ("mean_e2e_s", "mean_ttft_s", "p99_ttft_s", "mean_tpot_s")


def validation_plots(validation: Validation) -> dict[str, str]:
    """SVG text by name."""
    drawn = {f"cdf-{name.removesuffix('_s').replace('_', '-')}": _by_load(validation, name) for name in _DRAWN}
    return drawn | {f"worst-{name}": svg for name, svg in _worst(validation.worst()).items()}


def _worst(group: Group) -> dict[str, str]:
    first = group.pairings[0]
    return overlays([first.real, first.simulated[0]])


def _by_load(validation: Validation, name: str) -> str:
    """A line a policy, solid as real, dashed as simulated."""
    quantity = QUANTITIES[name]
    policies = list(dict.fromkeys(group.policy for group in validation.groups))
    values = [
        one for group in validation.groups for one in (group.agreements[name].real, group.agreements[name].simulated)
    ]
    unit = unit_named(quantity.unit, values)
    with style():
        figure = new_figure(5.2, 3.8)
        axes = figure.add_subplot()
        tidy(axes)
        for policy, (colour, _) in series_colours(policies).items():
            groups = [group for group in validation.groups if group.policy == policy]
            x = [group.load.value for group in groups]
            for world, dash, marker in (("real", "solid", "o"), ("simulated", "dashed", "x")):
                y = np.array([getattr(group.agreements[name], world) for group in groups]) * unit.scale
                label = policy if world == "real" else None
                axes.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4, linewidth=1.3, label=label)
        axes.set_title(f"{quantity.label}: solid real, dashed simulated")
        axes.set_xlabel({"rate": "requests/s", "concurrency": "clients", "as is": ""}[validation.groups[0].load.kind])
        axes.set_ylabel(unit.name)
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        return render(figure, f"by-load-{name}", f"{quantity.label} over the loads, real and simulated")
