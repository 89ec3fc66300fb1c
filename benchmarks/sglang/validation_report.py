"""What a validation by ``validate.py`` must hold to, and the page that says what held."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.validation.gates import ErrorGate, parse_gate
from live.validation.grid import Load
from simcore.experiment.gates import SIGNS

CAUSES = "## Causes"
"""What stands from here on in the page is written by hand, and stays when the page is written anew."""


@dataclass(frozen=True)
class Bar:
    """A bound in words, and the gate that fails where it does not hold."""

    words: str
    gate: str


@dataclass(frozen=True)
class Experiment:
    """One call of ``simroute validate``: what for, with which options, and what must hold."""

    name: str
    question: str
    scenario: str
    options: tuple[str, ...]
    bars: tuple[Bar, ...]

    @classmethod
    def policies(cls, rates: str, below: float) -> "Experiment":
        """Six policies at four rates, the last of them more than the servers can take."""
        orders = ("mean_ttft_s", "mean_tpot_s", "mean_e2e_s", "p99_e2e_s", "request_throughput_rps")
        return cls(
            "policies",
            "Six policies at 40%, 70%, 90% and 110% of capacity, heavy-tailed answers, three repeats",
            "validation-sglang-cpu",
            ("--rates", rates, "--repeats", "3"),
            (
                *_latency_bars(f" below {below:g}", ", below saturation"),
                *(Bar(f"order by {name}: tau 1 apart from ties", f"tau_{name}<1") for name in orders),
            ),
        )

    @classmethod
    def prefixes(cls) -> "Experiment":
        """How much of shared prompts is found in the caches."""
        bars = (Bar("cache hit rate within 3 points", "cache_hit_rate>0.03"), *_latency_bars("", ""))
        return cls("prefixes", "Shared system prompts", "validation-sglang-cpu-prefix", ("--repeats", "2"), bars)

    @classmethod
    def caps(cls) -> "Experiment":
        """Whether E2E follows a cap over time."""
        bars = (
            Bar("E2E over time within 10%", "series_e2e_s>0.1"),
            Bar("mean E2E within 5%", "mean_e2e_s>0.05"),
        )
        return cls("caps", "A cap that changes in mid-run", "validation-sglang-cpu-caps", ("--repeats", "2"), bars)

    @classmethod
    def node(cls, batches: str) -> "Experiment":
        """One server under continuous and static batches."""
        options = ("--policies", "round_robin", "--policy", batches, "--concurrency", "1,4,16,32", "--requests", "8")
        free = ("--set", "router.max_running_requests=null", "--set", "warmup_s=0", "--repeats", "2")
        return cls(
            "node",
            "One server, continuous against static batches, 1 to 32 clients in a closed loop",
            "validation-sglang-cpu",
            (*options, *free),
            _latency_bars("", ""),
        )

    @classmethod
    def retraction(cls) -> "Experiment":
        """A pool too small for what is admitted."""
        bars = (Bar("retractions within 20%", "retractions>0.2"), Bar("mean E2E within 8%", "mean_e2e_s>0.08"))
        return cls(
            "retraction",
            "A KV pool too small for what is admitted, on one server",
            "validation-sglang-cpu-retraction",
            ("--repeats", "2"),
            bars,
        )


def _latency_bars(scope: str, in_words: str) -> tuple[Bar, ...]:
    return (
        Bar("mean TPOT within 3%", "mean_tpot_s>0.03"),
        Bar("mean E2E within 5%", "mean_e2e_s>0.05"),
        Bar("throughput within 3%", "request_throughput_rps>0.03"),
        Bar(f"mean TTFT within 10%{in_words}", f"mean_ttft_s>0.1{scope}"),
        Bar(f"p99 TTFT within 20%{in_words}", f"p99_ttft_s>0.2{scope}"),
    )


def write_report(out: Path, experiments: list[Experiment], *, emulated: bool) -> None:
    """``out/README.md``; what stands under its causes is kept."""
    page = out / "README.md"
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    causes = before[before.index(CAUSES) :] if CAUSES in before else f"{CAUSES}\n\nNot looked into yet.\n"
    servers = "emulated servers: a trial of the script, which says nothing of real ones" if emulated else "real SGLang"
    lines = [f"# The simulator against servers ({servers})", ""]
    lines += ["Written by `benchmarks/sglang/validate.py` (`make validate`), but for the causes at the end.", ""]
    for experiment in experiments:
        document = json.loads((out / experiment.name / "validation.json").read_text(encoding="utf-8"))
        lines += _section(experiment, document)
    page.write_text("\n".join([*lines, causes]), encoding="utf-8")


def _section(experiment: Experiment, document: dict[str, Any]) -> list[str]:
    options = " ".join(f"'{word}'" if ":" in word else word for word in experiment.options)
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
