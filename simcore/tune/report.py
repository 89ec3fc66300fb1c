"""What a search leaves: every trial, the best parameters to paste, and the numbers of the test."""

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from simcore.run_folder import write_document
from simcore.scenario import Scenario, resolved_yaml
from simcore.scenario_file import to_yaml
from simcore.staging import slug, staged_folder
from simcore.summary import json_safe

from .held_back import HeldBack
from .search import Search
from .space import Setting, Space

__all__ = ["TUNE_SCHEMA_VERSION", "Found", "write"]

TUNE_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A search with its test; ``held_back`` is None where there was none: the default is the best, or Ctrl-C."""

    scenario: Scenario
    space: Space
    metric: str
    maximize: bool
    seeds: tuple[int, ...]
    search: Search
    held_back: HeldBack | None
    interrupted: bool

    @property
    def best(self) -> Setting:
        """The best setting, the given one where nothing was better."""
        if self.search.best.number == 0:
            return self.space.given
        return self.space.setting(self.search.best.values)

    def verdict(self) -> str:
        """What to make of it, in one or two sentences."""
        tried = len(self.search.trials) - 1
        if self.search.best.number == 0:
            return f"No gain: none of {tried} settings was better than the default on the seeds of the search."
        if self.held_back is None:
            return (
                f"Not tested: stopped after {tried} settings, before the best was tried on held-back seeds. Its value "
                f"on the seeds of the search is flattered by the choice."
            )
        return self.held_back.verdict(self.metric)

    def to_dict(self) -> dict[str, Any]:
        """For ``tune.json`` and ``--json``."""
        best = self.search.best
        document = {
            "schema_version": TUNE_SCHEMA_VERSION,
            "scenario": self.scenario.name,
            "metric": self.metric,
            "maximize": self.maximize,
            "seeds": self.seeds,
            "trials": len(self.search.trials) - 1,
            "interrupted": self.interrupted,
            "default": {"params": self.space.defaults(), "value": _mean(self.search.trials[0].score)},
            "best": {"trial": best.number, "params": dict(best.values), "value": _mean(best.score)},
            "held_back": self.held_back.to_dict() if self.held_back else None,
            "verdict": self.verdict(),
        }
        safe = json_safe(document)
        assert isinstance(safe, dict)
        return safe


def write(out: Path, found: Found, started_at: datetime, command: Sequence[str], policy_option: str) -> Path:
    """Write ``out/<time>-<scenario>-tune-<policy>/`` and return it. Raises UserError if ``out`` cannot be written."""
    name = f"{started_at:%Y%m%d-%H%M%S}-{slug(found.scenario.name)}-tune-{slug(found.space.given.policy.label)}"
    with staged_folder(out, name) as folder:
        texts = {
            "trials.csv": _trials(found),
            "best.yaml": snippet(found, policy_option),
            "config.yaml": resolved_yaml(found.scenario),
        }
        for file, text in texts.items():
            (folder.staging / file).write_text(text, encoding="utf-8")
        write_document(folder.staging / "tune.json", {**found.to_dict(), "command": shlex.join(command)})
    return folder.final


def snippet(found: Found, policy_option: str) -> str:
    """The best parameters as a scenario takes them, and the policy's as the command line does."""
    best = found.best
    document: dict[str, Any] = {"policies": [_plain(best.policy.name, best.policy.params)]}
    if best.controller is not None:
        document["controller"] = _plain(best.controller.name, best.controller.params)
    option = shlex.join(["--policy", policy_option])
    return f"# {found.verdict()}\n# On the command line: {option}\n{to_yaml(document)}"


def _plain(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "params": json.loads(json.dumps(params))}


def _trials(found: Found) -> str:
    stream = io.StringIO()
    names = [dimension.name for dimension in found.space.dimensions]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", found.metric, "lost_share", *(f"seed_{seed}" for seed in found.seeds), *names, "note"])
    for trial in found.search.trials:
        score = trial.score
        values = score.values if score else [""] * len(found.seeds)
        told = [_mean(score), score.lost_share if score else "", *values]
        writer.writerow([trial.number, *told, *(trial.values[name] for name in names), trial.note])
    return stream.getvalue()


def _mean(score: Any) -> Any:
    return score.mean if score is not None else ""
