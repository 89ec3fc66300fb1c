"""What a counterfactual shows: sentences and the page."""

from collections.abc import Mapping

from simcore.compare.agreement_tables import agreement_table, breakdown_table
from simcore.compare.overlay import overlays
from simcore.report.html import Page, comparison_plots, render
from simcore.report.table import TextTable
from simcore.report.tables import comparison_table
from simcore.report.wording import verdict

from .counterfactual import Counterfactual

__all__ = ["reproduction_tables", "trust_line", "whatif_page", "whatif_plots"]

_VERDICT = {
    "good": ("reproduces the run as it was", "what follows can be trusted as far as that goes"),
    "usable": ("roughly reproduces the run as it was", "take what follows as a direction"),
    "do not trust": ("does not reproduce the run as it was", "what follows is no answer"),
}


def trust_line(found: Counterfactual) -> str:
    """How well the simulation reproduces the run, in one sentence."""
    if found.exact:
        return "The simulation repeats the run exactly, request by request."
    word, reasons = found.verdict
    finding, advice = _VERDICT[word]
    said = f": {'; '.join(reasons)}" if reasons else ""
    return f"The simulation {finding}{said}; {advice}."


def reproduction_tables(found: Counterfactual) -> list[TextTable]:
    """Errors of the run simulated as it was, and where on the path they are."""
    return [
        agreement_table(found.agreements, "The run as it was: real and simulated"),
        breakdown_table(found.parts, "Where the error of mean E2E is"),
    ]


def whatif_plots(found: Counterfactual) -> dict[str, str]:
    """SVG text by name: the alternatives beside each other, and the run over its simulation."""
    drawn = comparison_plots(found.comparison) if found.alternatives else {}
    return drawn | {f"as-it-was-{name}": svg for name, svg in overlays([found.real, found.twin]).items()}


def whatif_page(found: Counterfactual, drawn: Mapping[str, str], *, config: str, command: str) -> str:
    """HTML text."""
    summary = found.real.summary
    tables = reproduction_tables(found)
    if found.alternatives:
        tables.append(comparison_table(found.comparison))
    return render(
        Page(
            title=f"What if: {summary.scenario}",
            subtitle=f"the requests of a {summary.kind} run under {summary.policy}, seed {summary.seed}",
            facts=[("requests", f"{summary.requests:,}"), ("servers", str(len(summary.servers)))],
            verdict=[trust_line(found), *(verdict(found.comparison) if found.alternatives else ())],
            figures=(),
            tables=tables,
            plots=drawn,
            config=config,
            command=command,
            warnings=[f"the run: {warning}" for warning in summary.warnings],
        )
    )
