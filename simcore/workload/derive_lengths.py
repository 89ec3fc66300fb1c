"""Derive the bundled length tables from the traces: ``python -m simcore.workload.derive_lengths``.

Needs ``SIMROUTE_DATA``, the folder with the traces; writes scenarios/lengths/<name>.json.
"""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from scipy import stats

from .columns import IntColumn
from .length_table import LEVELS, LengthTable, Source
from .trace_file import expand_variables
from .traces import AzureTrace, MooncakeTrace, TraceSpec, read_trace

__all__ = ["TABLES", "derive_table", "main"]


class _Derivation(NamedTuple):
    trace: TraceSpec
    repository: str
    licence: str


_TRACES = "${SIMROUTE_DATA}/traces"
_AZURE = "Azure/AzurePublicDataset", "CC-BY-4.0"
_MOONCAKE = "kvcache-ai/Mooncake", "Apache-2.0"

TABLES = {
    "azure-conv": _Derivation(
        AzureTrace(kind="azure-2023", path=f"{_TRACES}/azure-2023/AzureLLMInferenceTrace_conv.csv"), *_AZURE
    ),
    "azure-code": _Derivation(
        AzureTrace(kind="azure-2023", path=f"{_TRACES}/azure-2023/AzureLLMInferenceTrace_code.csv"), *_AZURE
    ),
    "mooncake-conversation": _Derivation(
        MooncakeTrace(path=f"{_TRACES}/mooncake/conversation_trace.jsonl"), *_MOONCAKE
    ),
    "mooncake-synthetic": _Derivation(MooncakeTrace(path=f"{_TRACES}/mooncake/synthetic_trace.jsonl"), *_MOONCAKE),
}


def derive_table(name: str, source: Source, prompt: IntColumn, output: IntColumn) -> LengthTable:
    """The table of paired lengths in tokens, shape (requests,)."""
    rank = float(stats.spearmanr(prompt, output).statistic)
    return LengthTable(
        name=name,
        derived_from=source,
        derived_by="python -m simcore.workload.derive_lengths",
        prompt_mean_tokens=round(float(prompt.mean()), 3),
        output_mean_tokens=round(float(output.mean()), 3),
        rank_correlation=round(rank, 4),
        # Of two normals with correlation r the ranks have 6/pi * asin(r/2).
        copula_correlation=round(float(2 * np.sin(np.pi / 6 * rank)), 4),
        levels=LEVELS,
        prompt_tokens=tuple(np.round(np.quantile(prompt, LEVELS), 2).tolist()),
        output_tokens=tuple(np.round(np.quantile(output, LEVELS), 2).tolist()),
    )


def _derive(name: str, derivation: _Derivation) -> LengthTable:
    file = Path(expand_variables(derivation.trace.path, f"the repository {derivation.repository}"))
    trace = read_trace(derivation.trace, np.random.default_rng(0), base_dir=Path())
    source = Source(
        repository=derivation.repository,
        file=file.name,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        licence=derivation.licence,
        requests=len(trace.prompt_tokens),
    )
    return derive_table(name, source, trace.prompt_tokens, trace.output_tokens)


def _as_text(table: LengthTable) -> str:
    """JSON with one key a line, so that a change of one column is one changed line."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in table.model_dump(mode="json").items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Default: the package's own folder.")
def main(out: Path | None) -> None:
    """Write the bundled length tables anew from the traces under SIMROUTE_DATA."""
    folder = out or Path(str(resources.files("scenarios") / "lengths"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, derivation in TABLES.items():
        path = folder / f"{name}.json"
        path.write_text(_as_text(_derive(name, derivation)), encoding="utf-8")
        click.echo(path)


if __name__ == "__main__":
    main()
