"""A validation script that is told to end, in the middle of ``simroute validate``."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from sitting import ROOT
from support.cli import environment

PATIENCE_S = 60


def emulators_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return [one for one in psutil.Process(process.pid).children(recursive=True) if "emulate" in one.cmdline()]


def to_one(process: subprocess.Popen[bytes]) -> None:
    process.terminate()


def as_a_terminal_does(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(("end", "code"), [(to_one, 128 + 15), (as_a_terminal_does, -2)])
def test_nothing_that_it_started_is_left_behind(
    tmp_path: Path, end: Callable[[subprocess.Popen[bytes]], None], code: int
) -> None:
    script = ROOT / "benchmarks/sglang/validate_gpu.py"
    with subprocess.Popen(
        [sys.executable, str(script), "--emulate", "20", "--out", str(tmp_path / "out")],
        env=environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + PATIENCE_S
        while not (started := emulators_of(process)):
            assert time.monotonic() < deadline, "no emulator was started"
            time.sleep(0.1)
        end(process)
        assert process.wait(PATIENCE_S) == code

    assert not [one for one in started if one.is_running()]
    assert not list(tmp_path.glob("simroute-*")), "temporary files"
