"""The imported RTX 4090 profile against 300 measured requests: ``python -m calibrate.measured_check --data DIR``.

vLLM 0.19 served them on one GPU, with mixed steps of at most 2048 tokens, 41,408 tokens of KV and heavy preemption.
vLLM admits requests as long as there is room for their prompt; SGLang's scheduler, which is what is simulated, reserves
room for answers too. It gets the schedule_conservativeness that SGLang's tuning guide names for servers with a queue.

That value and the profile's ``overhead_s`` of 0 were chosen knowing these very requests: E2E is off by 2% to 6% over
the values tried, and by 22% with admission as vLLM's. So agreement here is consistency, no proof. ``measured_halves``
chooses both by one half of the requests and scores the other.
"""

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import pandas as pd

from simcore.engine import simulate
from simcore.errors import UserError
from simcore.profile import ServiceProfile
from simcore.scenario import PolicySpec, Scenario

__all__ = ["CONSERVATIVENESS", "Agreement", "agreements", "compare_with_measured", "main", "read_measured", "simulated"]

CONSERVATIVENESS: Final = 0.3

_FOLDER: Final = "measured/vllm-0.19-rtx4090-llama31-8b"
_LAUNCH: Final = {
    "kv_tokens_capacity": 41_408,
    "page_size": 16,
    "max_running_requests": 256,
    "chunked_prefill_size": 2048,
    "max_prefill_tokens": 2048,
    "mixed_chunk": True,
    "radix_cache": False,
    "context_length": 32_768,
}


@dataclass(frozen=True, slots=True)
class Agreement:
    """Means over the requests, seconds; ``simulated`` over ``measured`` less one is the error."""

    name: str
    measured: float
    simulated: float

    @property
    def error(self) -> float:
        return self.simulated / self.measured - 1


def compare_with_measured(data: Path, profile: str) -> list[Agreement]:
    """Mean E2E, TPOT and TTFT of the measured requests, and of the same ones simulated. Raises UserError."""
    rows = read_measured(data)
    return agreements(rows, simulated(rows, ServiceProfile.load(profile, Path()), CONSERVATIVENESS))


def read_measured(data: Path) -> pd.DataFrame:
    """The measured requests, in order of arrival. Raises UserError."""
    file = data / _FOLDER / "requests.jsonl"
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    return pd.DataFrame(rows).sort_values("queued_ts", ignore_index=True)


def simulated(rows: pd.DataFrame, profile: ServiceProfile, conservativeness: float) -> pd.DataFrame:
    """The records of the same requests, simulated. Raises UserError where one does not finish."""
    launch = {**_LAUNCH, "schedule_conservativeness": conservativeness}
    with tempfile.TemporaryDirectory() as folder:
        trace, file = Path(folder) / "requests.csv", Path(folder) / "profile.json"
        _write_trace(rows, trace)
        file.write_text(profile.to_json(), encoding="utf-8")
        scenario = Scenario.model_validate(
            {
                "name": "measured-rtx4090",
                "workload": {"trace": {"kind": "burstgpt", "path": str(trace)}, "ignore_eos": False},
                "servers": [{"profile": str(file), "launch": launch}],
            }
        )
        records = simulate(scenario, PolicySpec(name="round_robin"), 0).requests
    unfinished = int((records["status"] != "finished").sum())
    if unfinished:
        raise UserError(f"{unfinished} of the simulated requests did not finish")
    return records


def agreements(rows: pd.DataFrame, records: pd.DataFrame) -> list[Agreement]:
    """Of measured requests and the records of the same ones."""
    first, last = records["first_token_at"], records["finished_at"]
    found = _latencies(records["arrived_at"], first, last, records["output_tokens"])
    real = _latencies(*(rows[name] for name in ("queued_ts", "first_token_ts", "last_token_ts", "output_toks")))
    return [Agreement(name, real[name], found[name]) for name in real]


def _write_trace(rows: pd.DataFrame, file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type"])
        start = rows["queued_ts"].iloc[0]
        for at, prompt, answer in zip(rows["queued_ts"], rows["input_toks"], rows["output_toks"], strict=True):
            writer.writerow([f"{at - start:.6f}", "m", prompt, answer, prompt + answer, "API log"])


def _latencies(arrived: pd.Series, first: pd.Series, last: pd.Series, tokens: pd.Series) -> dict[str, float]:
    several = tokens > 1
    tpot = (last - first)[several] / (tokens[several] - 1)
    return {
        "mean E2E": float(np.mean(last - arrived)),
        "mean TPOT": float(np.mean(tpot)),
        "mean TTFT": float(np.mean(first - arrived)),
    }


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with measured/.")
@click.option("--profile", default="llama-3.1-8b-rtx4090", show_default=True, help="Profile to simulate with.")
def main(data: Path, profile: str) -> None:
    """Simulate the measured requests and print both worlds' means."""
    try:
        agreements = compare_with_measured(data, profile)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from error
    for one in agreements:
        click.echo(f"{one.name:10} measured {one.measured:9.4f} s, simulated {one.simulated:9.4f} s, {one.error:+.1%}")


if __name__ == "__main__":
    main()
