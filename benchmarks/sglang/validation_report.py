"""The page that says which of the bounds of ``experiments.py`` held."""

import json
import math
from pathlib import Path
from typing import Any

from experiments import Bar, Experiment

from live.validation.gates import ErrorGate, parse_gate
from live.validation.grid import Load
from simcore.experiment.gates import SIGNS

AS_CALIBRATED = "as-calibrated.json"
"""Where an experiment's validation.json is of simulations at the pace of each run: that of those with one profile for
all runs, beside it."""
PACE = "pace.json"
"""What the pace was beside each of the runs, and which of them were measured again."""
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
        lines += _section(experiment, out / experiment.name)
    page.write_text("\n".join([*lines, causes]), encoding="utf-8")


def _section(experiment: Experiment, folder: Path) -> list[str]:
    document = _document(folder / "validation.json")
    words = (*experiment.options, "--repeats", str(experiment.repeats))
    options = " ".join(f"'{word}'" if ":" in word else word for word in words)
    cells = sum(len(group["repeats"]) for group in document["groups"])
    invalid = f"{len(document['invalid'])} of {cells} live runs are invalid." if document["invalid"] else ""
    return [
        f"## {experiment.question}",
        "",
        f"`simroute validate --scenario {experiment.scenario} {options}`: "
        f"[report]({experiment.name}/report.html), [numbers]({experiment.name}/validation.json). {invalid}".rstrip(),
        "",
        *_pace(experiment, folder, document),
        *_bars(experiment, document, folder / AS_CALIBRATED),
        "",
        *_errors(document),
        "",
        *(f"- {warning}" for warning in document["warnings"]),
        *([""] * bool(document["warnings"])),
    ]


def _document(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _pace(experiment: Experiment, folder: Path, document: dict[str, Any]) -> list[str]:
    if not (folder / AS_CALIBRATED).exists():
        return []
    pace = _document(folder / PACE)
    again, runs = len(pace["measured_again"]), len(pace["work_s"])
    disturbed = f" {again} of {runs} runs were measured a second time, as the host took more than a tenth, or the load "
    return [
        f"Each run is simulated {document['groups'][0]['draws']} times, at the [pace]({experiment.name}/pace.json) "
        "that the machine had meanwhile, and beside what its host took of it, with steps as the calibration found them "
        "to be then"
        + (", beside neighbours as busy as the simulation has them" if pace["crowding"] else "")
        + ", and as uneven; what counts is the mean, and ± is what chance makes of a run, by their scatter. The last "
        "two columns are of one simulation each, with one profile for all runs."
        + (disturbed + "generator was late." if again else ""),
        "",
    ]


def _bars(experiment: Experiment, document: dict[str, Any], as_calibrated: Path) -> list[str]:
    """A row a bar, with what was found as calibrated where that is something else."""
    columns, rows = ["wanted", "worst", "where", ""], [_bar_row(bar, document) for bar in experiment.bars]
    if as_calibrated.exists():
        columns += ["with one profile for all runs", ""]
        before = _document(as_calibrated)
        for bar, row in zip(experiment.bars, rows, strict=True):
            _, worst, where, held = _bar_row(bar, before)
            row += [f"{worst}, {where}".removesuffix(", "), held]
    return [_row(columns), "|" + "---|" * len(columns), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _bar_row(bar: Bar, document: dict[str, Any]) -> list[str]:
    """What is wanted, the worst, where that is, whether it is held."""
    gate = parse_gate(bar.gate)
    found = _values(gate, document)
    known = {where: value for where, value in found.items() if not math.isnan(value)}
    if gate.metric.startswith("tau_"):
        if not known:
            return [bar.words, "all tied", "", "held"]
        where = min(known, key=lambda name: known[name])
        worst, said = known[where], f"{known[where]:.2f}"
    else:
        if len(known) < len(found):
            unknown = next(where for where in found if where not in known)
            return [bar.words, "not measured", unknown, "**not held**"]
        where = max(known, key=lambda name: known[name])
        worst, said = known[where], f"{100 * known[where]:.1f}%"
        said += _chance(_errors_of(gate, document)[where]) if document["groups"][0]["draws"] > 1 else ""
    return [bar.words, said, where, "**not held**" if SIGNS[gate.sign](worst, gate.limit) else "held"]


def _values(gate: ErrorGate, document: dict[str, Any]) -> dict[str, float]:
    """Sizes of errors, or taus, by where they are; NaN for null."""
    if gate.metric.startswith("tau_"):
        name = gate.metric.removeprefix("tau_")
        return {one["load"]: _number(one["tau"]) for one in document["orders"] if one["quantity"] == name}
    return {where: abs(_number(error["value"])) for where, error in _errors_of(gate, document).items()}


def _errors_of(gate: ErrorGate, document: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """With their intervals, by where they are."""
    return {
        f"{group['policy']}, {group['load']}": group["errors"][gate.metric]["error"]
        for group in document["groups"]
        if gate.covers(Load("rate", group["load_value"]))
    }


def _chance(error: dict[str, float | None]) -> str:
    """What it makes of a run, by the draws of the simulation."""
    half = (_number(error["high"]) - _number(error["low"])) / 2
    return "" if math.isnan(half) else f" ± {100 * half:.1f}"


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
