"""The page of a comparison of runs, and its finding in sentences."""

from collections.abc import Mapping, Sequence

from simcore.report.html import Page, render
from simcore.report.model_tables import model_tables
from simcore.report.wording import percent

from .side_by_side import SideBySide
from .tables import metric_table, run_table

__all__ = ["findings", "sides_page", "warnings_of"]


def sides_page(compared: SideBySide, drawn: Mapping[str, str], *, configs: Sequence[str], command: str) -> str:
    """HTML text; ``configs`` are the runs' resolved scenarios, ``command`` repeats the comparison."""
    sides = compared.sides
    config = "\n".join(f"# {side.label}\n{text}" for side, text in zip(sides, configs, strict=True))
    return render(
        Page(
            title="Comparison of runs",
            subtitle=", ".join(side.label for side in sides),
            facts=[("reference", sides[0].label)],
            verdict=findings(compared),
            figures=(),
            tables=[
                run_table(compared),
                metric_table(compared, everything=True),
                *model_tables([(side.label, side.summary) for side in compared.sides], "run"),
            ],
            plots=drawn,
            config=config,
            command=command,
            warnings=warnings_of(compared),
        )
    )


def findings(compared: SideBySide) -> list[str]:
    """One sentence a run: how many metrics differ, and the most striking of the means."""
    lines = []
    for index, side in enumerate(compared.sides[1:]):
        versus = [(row.quantity, row.versus[index]) for row in compared.rows]
        told = [(quantity, one) for quantity, one in versus if one.p_value == one.p_value]
        differ = [(quantity, one) for quantity, one in told if one.significant]
        line = f"{side.label}: {len(differ)} of {len(told)} metrics differ significantly from {compared.sides[0].label}"
        means = {
            quantity.label: one.difference.relative.value
            for quantity, one in differ
            if quantity.name in ("mean_ttft_s", "mean_tpot_s", "mean_e2e_s", "request_throughput_rps")
        }
        said = [f"{label} {percent(abs(share))} {'higher' if share > 0 else 'lower'}" for label, share in means.items()]
        lines.append(f"{line}{': ' if said else ''}{', '.join(said)}.")
    return lines


def warnings_of(compared: SideBySide) -> list[str]:
    """What the runs themselves warn of, and of what they cannot be compared in."""
    found = [
        f"{side.label}: interrupted, these are partial results" for side in compared.sides if side.summary.interrupted
    ]
    found += [f"{side.label}: {warning}" for side in compared.sides for warning in side.summary.warnings]
    warmups = {side.summary.warmup_s for side in compared.sides}
    if len(warmups) > 1:
        said = ", ".join(f"{warmup_s:g} s" for warmup_s in sorted(warmups))
        found.append(f"the runs leave out warm-ups of different length ({said}): other requests are measured in each")
    return found
