"""Run folders as sides of a comparison, under names that tell them apart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from simcore.errors import UserError
from simcore.run_folder import StoredRun, load_run
from simcore.summary import Summary

from .side import Side

__all__ = ["labels_of", "load_runs", "sides_of"]


def load_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Each path's run, or all runs of a comparison's folder. Raises UserError for what is neither, and where the same
    folder comes twice."""
    folders = [folder for path in paths for folder in _folders(path)]
    for folder, count in Counter(folder.resolve() for folder in folders).items():
        if count > 1 and len(folders) > 2:
            raise UserError(f"{folder} is given twice")
    return [load_run(folder) for folder in folders]


def sides_of(runs: Sequence[StoredRun]) -> list[Side]:
    """The runs with their labels."""
    labels = labels_of([run.summary for run in runs])
    return [Side.make(label, run.result, run.summary) for label, run in zip(labels, runs, strict=True)]


def labels_of(summaries: Sequence[Summary]) -> list[str]:
    """The policy, with those of kind, scenario and seed in which the runs differ; a number where nothing differs."""
    told = [(summary.policy, summary.kind, summary.scenario, f"seed {summary.seed}") for summary in summaries]
    differ = [0, *(part for part in (1, 2, 3) if len({words[part] for words in told}) > 1)]
    labels = [" ".join(words[part] for part in differ) for words in told]
    seen: Counter[str] = Counter()
    for index, label in enumerate(labels):
        seen[label] += 1
        if seen[label] > 1:
            labels[index] = f"{label} ({seen[label]})"
    return labels


def _folders(path: Path) -> list[Path]:
    if (path / "comparison.json").is_file():
        return sorted(child.parent for child in path.glob("*/summary.json"))
    return [path]
