"""The command line as a user meets it: in this process, or as one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from simroute import main

ROOT = Path(__file__).resolve().parents[2]

TINY = """\
name: tiny
description: Some seconds of traffic to two servers.
warmup_s: 1
workload:
  arrivals: {kind: poisson, rate_rps: 10}
  duration_s: 20
  lengths:
    prompt: {kind: fixed, tokens: 100}
    output: {kind: lognormal, mean_tokens: 40, cv: 1}
servers:
  - {profile: llama-3.1-8b-l40s, count: 2}
policies: [random, least_request]
slo: {ttft_s: 1}
"""


def tiny(folder: Path, name: str = "tiny.yaml", text: str = TINY) -> str:
    """The path of a small scenario's file."""
    path = folder / name
    path.write_text(text)
    return str(path)


def invoke(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    """Run a command here; what is not a user's mistake is raised."""
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "120", **(env or {})}, catch_exceptions=False)


def sim(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    """``simroute sim`` here, one run after another."""
    return invoke("sim", "--jobs", "1", *arguments, env=env)


def document(*arguments: str) -> Any:
    """What ``simroute sim --json`` prints."""
    result = sim("--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def command(*arguments: str) -> list[str]:
    """The words that start simroute in a process of its own, whether or not it is installed."""
    return [sys.executable, "-W", "error", "-c", "import simroute; simroute.main(prog_name='simroute')", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """That of a process of its own: what colours or sizes an output is as on a machine where nothing is set."""
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "SIMROUTE_DATA")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def process(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own, to its end."""
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**changes), capture_output=True, text=True, check=False
    )
