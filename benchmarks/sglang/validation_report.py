"""The page that says which of the bounds of ``experiments.py`` held."""

import json
import math
from pathlib import Path
from typing import Any

from experiments import Bar, Experiment

from live.validation.gates import ErrorGate, parse_gate
from live.validation.grid import Load
from simcore.experiment.gates import SIGNS

CAUSES = "## Causes"
"""What stands from here on in the page is written by hand, and stays when the page is written anew."""


def write_report(out: Path, experiments: list[Experiment], *, script: str, emulated: bool) -> None:
    """``out/README.md``; what stands under its causes is kept."""
    page = out / "README.md"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    causes = before[before.index(CAUSES) :] if CAUSES in before else f"{CAUSES}\n\nNot looked into yet.\n"
    servers = "emulated servers: a trial of the script, which says nothing of real ones" if emulated else "real SGLang"
    lines = [f"# The simulator against servers ({servers})", ""]
    lines += [f"Written by `benchmarks/sglang/{script}`, but for the causes at the end.", ""]
    for experiment in experiments:
        document = json.loads((out / experiment.name / "validation.json").read_text(encoding="utf-8"))
        lines += _section(experiment, document)
    page.write_text("\n".join([*lines, causes]), encoding="utf-8")


def _section(experiment: Experiment, document: dict[str, Any]) -> list[str]:
    words = (*experiment.options, "--repeats", str(experiment.repeats))
    options = " ".join(f"'{word}'" if ":" in word else word for word in words)
    rows = [_bar_row(bar, document) for bar in experiment.bars]
    cells = sum(len(group["repeats"]) for group in document["groups"])
    invalid = f"{len(document['invalid'])} of {cells} live runs are invalid." if document["invalid"] else ""
    return [
        f"## {experiment.question}",
        "",
        f"`simroute validate --scenario {experiment.scenario} {options}`: "
        f"[report]({experiment.name}/report.html), [numbers]({experiment.name}/validation.json). {invalid}".rstrip(),
        "",
        "| wanted | worst | where | |",
        "|---|---|---|---|",
        *rows,
        "",
        *_errors(document),
        "",
        *(f"- {warning}" for warning in document["warnings"]),
        *([""] * bool(document["warnings"])),
    ]


def _bar_row(bar: Bar, document: dict[str, Any]) -> str:
    gate = parse_gate(bar.gate)
    found = _values(gate, document)
    known = {where: value for where, value in found.items() if not math.isnan(value)}
    if gate.metric.startswith("tau_"):
        if not known:
            return f"| {bar.words} | all tied | | held |"
        where = min(known, key=lambda name: known[name])
        worst, said = known[where], f"{known[where]:.2f}"
    else:
        if len(known) < len(found):
            unknown = next(where for where in found if where not in known)
            return f"| {bar.words} | not measured | {unknown} | **not held** |"
        where = max(known, key=lambda name: known[name])
        worst, said = known[where], f"{100 * known[where]:.1f}%"
    held = "**not held**" if SIGNS[gate.sign](worst, gate.limit) else "held"
    return f"| {bar.words} | {said} | {where} | {held} |"


def _values(gate: ErrorGate, document: dict[str, Any]) -> dict[str, float]:
    """Sizes of errors, or taus, by where they are; NaN for null."""
    if gate.metric.startswith("tau_"):
        name = gate.metric.removeprefix("tau_")
        return {one["load"]: _number(one["tau"]) for one in document["orders"] if one["quantity"] == name}
    return {
        f"{group['policy']}, {group['load']}": abs(_number(group["errors"][gate.metric]["error"]["value"]))
        for group in document["groups"]
        if gate.covers(Load("rate", group["load_value"]))
    }


def _errors(document: dict[str, Any]) -> list[str]:
    """A row a policy and load."""
    names = ("mean_ttft_s", "p99_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
    headings = [document["groups"][0]["errors"][name]["label"] for name in names]
    lines = [
        f"| policy | load | {' | '.join(headings)} | cache hits | retractions |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for group in document["groups"]:
        errors = [f"{100 * _number(group['errors'][name]['error']['value']):+.1f}%" for name in names]
        hits = f"{100 * _number(group['errors']['cache_hit_rate']['error']['value']):+.1f} pts"
        counts = [group["errors"]["retractions"][world] for world in ("real", "simulated")]
        retracted = f"{counts[0]:g}, {counts[1]:g} simulated" if any(counts) else "none"
        lines.append(f"| {group['policy']} | {group['load']} | {' | '.join(errors)} | {hits} | {retracted} |")
    return lines


def _number(value: float | None) -> float:
    return math.nan if value is None else value
