"""Ctrl-C, which a terminal sends to all processes of the group at once, and SIGTERM, as ``timeout`` does."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.cli import command, environment, tiny

LONG = ("--set", "workload.duration_s=60000", "--set", "workload.arrivals.rate_rps=20")
SEVERAL = ("--policy", "random", "--policy", "least_request", "--policy", "round_robin", "--jobs", "2")
PATIENCE_S = 60


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def board(folder: Path) -> np.ndarray:
    """What the processes of a run tell each other: whether to stop, and each job's share done."""
    found = list(folder.glob("simroute-*/board"))
    return np.fromfile(found[0]) if found else np.zeros(2)


def living(group: int) -> list[int]:
    """Processes of a group but for those that are dead and not yet collected."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A long simulation in a process group of its own, once requests have ended in it; its temporary files and results
    are in ``folder``."""
    temporary = folder / "temporary"
    temporary.mkdir()
    words = command("sim", "--scenario", tiny(folder), "--out", str(folder / "out"), *LONG, *options)
    env = environment(TMPDIR=str(temporary), COLUMNS="120")
    with subprocess.Popen(
        words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if living(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> None:
    os.killpg(process.pid, number)


def check_nothing_is_left(folder: Path, group: int) -> None:
    wait_until(lambda: not living(group))
    assert list((folder / "temporary").iterdir()) == []
    assert not list(folder.glob("out/.*")), "a folder half-written"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [("--policy", "random"), SEVERAL], ids=["one run", "several"])
def test_partial_results_are_written_and_marked(tmp_path: Path, options: tuple[str, ...], number: int) -> None:
    with running(tmp_path, *options) as process:
        wait_until(lambda: (board(tmp_path / "temporary")[1 : 2 if len(options) == 2 else 3] > 0).all())
        interrupt(process, number)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    of = "" if len(options) == 2 else ", of 2 of 3 runs"
    assert stderr == f"simroute: interrupted: these are partial results{of}\n"
    assert "interrupted (random, seed 0): these are partial results" in stdout
    summaries = list(tmp_path.glob("out/**/summary.json"))
    assert len(summaries) == (1 if len(options) == 2 else 2)
    for path in summaries:
        assert json.loads(path.read_text())["interrupted"]
        assert json.loads((path.parent / "manifest.json").read_text())["interrupted"]
        assert "partial results" in (path.parent / "report.html").read_text()
    check_nothing_is_left(tmp_path, process.pid)


@pytest.mark.parametrize("options", [("--policy", "random"), SEVERAL], ids=["one run", "several"])
def test_a_second_one_ends_at_once(tmp_path: Path, options: tuple[str, ...]) -> None:
    with running(tmp_path, *options) as process:
        wait_until(lambda: board(tmp_path / "temporary")[1] > 0)
        interrupt(process)
        wait_until(lambda: board(tmp_path / "temporary")[0] == 1 or process.poll() is not None)
        interrupt(process)
        _, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    # It may reach the simulation itself, which then ends with what it has.
    assert stderr.startswith("simroute: interrupted")
    assert "Traceback" not in stderr
    check_nothing_is_left(tmp_path, process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_processes_start(tmp_path: Path, number: int) -> None:
    """They would not survive either while they import, so they must not see it."""
    with running(tmp_path, *SEVERAL) as process:
        wait_until(lambda: len(living(process.pid)) >= 3)
        interrupt(process, number)
        _, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert stderr.startswith("simroute: interrupted")
    assert "Traceback" not in stderr
    check_nothing_is_left(tmp_path, process.pid)


def never_ready(folder: Path) -> str:
    """A program that takes the place of ``python -m sglang.launch_server``, and leaves its pid in the folder."""
    script = folder / "never-ready"
    code = f"""\
        #!{sys.executable}
        import os, pathlib, time
        pathlib.Path({str(folder / "pid")!r}).write_text(str(os.getpid()))
        time.sleep(60)
        """
    script.write_text(textwrap.dedent(code))
    script.chmod(0o755)
    return str(script)


def ignored() -> None:
    """Ctrl-C is, in commands that a shell starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("before", [None, ignored], ids=["in front", "in the background"])
def test_sigterm_is_as_ctrl_c_and_no_server_that_was_started_is_left_behind(
    tmp_path: Path, before: Callable[[], None] | None
) -> None:
    pid = tmp_path / "pid"
    words = command("calibrate", "--launch", "m", "--python", never_ready(tmp_path), "--out", "out")
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, preexec_fn=before
    ) as process:
        wait_until(lambda: pid.exists() and pid.read_text())
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 130
    assert stderr.endswith("simroute: interrupted\n")
    assert "Traceback" not in stderr
    assert not psutil.pid_exists(int(pid.read_text()))
