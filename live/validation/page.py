"""What a validation shows: sentences, the page, the terminal."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

from simcore.compare.agreement_tables import breakdown_table, part_label, said_signed
from simcore.compare.breakdown import PARTS
from simcore.report import print_table
from simcore.report.html import Page, render
from simcore.report.table import TextTable
from simcore.report.wording import latency_unit, signed_number

from .findings import Group, Validation
from .tables import count_table, error_table, order_table, overview_table

__all__ = ["findings_in_words", "show_validation", "validation_page", "warnings_of"]

_SERVERS = {True: "emulated servers, whose times are a profile's own", False: "real servers"}


def findings_in_words(validation: Validation) -> list[str]:
    """The finding first: the order of the policies, then the worst setting and its cause."""
    told = [one for one in validation.orders if one.order.pairs]
    broken = [one for one in told if one.order.tau < 1]
    if not told:
        first = "No two policies differ by more than the noise, so there is no order to keep."
    elif broken:
        first = f"The order of the policies is broken in {len(broken)} of {len(told)} comparisons by load and metric."
    else:
        first = (
            f"The simulation has the policies in the servers' order in all {len(told)} comparisons, apart from ties."
        )
    return [first, _worst_line(validation.worst())]


def _worst_line(group: Group) -> str:
    found, part = group.agreements["mean_e2e_s"], max(group.parts, key=lambda part: abs(part.error_s))
    if part.error_s == 0:
        return "Mean E2E is exact everywhere."
    unit = latency_unit([part.error_s])
    return (
        f"Mean E2E is furthest off in {group}: {said_signed(found, found.error.value)}, most of it in "
        f"{part_label(part)} ({PARTS[part.name]}): {signed_number(part.error_s * unit.scale)} {unit.name}."
    )


def _breakdown(group: Group) -> TextTable:
    return breakdown_table(group.parts, f"Where the error is: {group}")


def warnings_of(validation: Validation) -> list[str]:
    """What limits the finding."""
    found = list(validation.warnings)
    found += [f"{told}: this live run proves nothing" for told in validation.invalid]
    lost = [group for group in validation.groups if any(side.summary.counts["failed"] for side in group.worlds[0])]
    found += [f"{group}: requests failed live" for group in lost]
    if all(len(group.pairings) == 1 for group in validation.groups):
        found.append("one repeat: the noise between repeats is unknown, and all policies count as tied")
    return found


def validation_page(validation: Validation, drawn: Mapping[str, str], *, config: str, command: str) -> str:
    """HTML text."""
    cells = sum(len(group.pairings) for group in validation.groups)
    worst = validation.worst()
    return render(
        Page(
            title=f"Validation: {validation.scenario}",
            subtitle=f"{cells} cells, on {_SERVERS[validation.emulated]}",
            facts=[("policies", str(len({group.policy for group in validation.groups}))), ("cells", str(cells))],
            verdict=findings_in_words(validation),
            figures=(),
            tables=[
                overview_table(validation),
                order_table(validation),
                error_table(validation),
                _breakdown(worst),
                count_table(worst),
            ],
            plots=drawn,
            config=config,
            command=command,
            warnings=warnings_of(validation),
            details=[(str(group), [_breakdown(group), count_table(group)]) for group in validation.groups],
        )
    )


def show_validation(console: Console, validation: Validation, folder: Path) -> None:
    """Tables and sentences."""
    worst = validation.worst()
    console.print(Text(f"\n{validation.scenario} on {_SERVERS[validation.emulated]}", style="bold"))
    for table in (
        error_table(validation),
        overview_table(validation),
        order_table(validation),
        _breakdown(worst),
        count_table(worst),
    ):
        print_table(console, table)
    console.print()
    for line in findings_in_words(validation):
        console.print(Text(line, style="bold"))
    for warning in warnings_of(validation):
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(f"\nReport: {folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
