"""``calibrate --from-run --watch``: each new run is looked at once, a drift is warned of, and Ctrl-C ends it."""

import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli import command, environment, invoke, process

from calibrate.drift import scaled_profile
from simcore.profile import ServiceProfile

PROFILE = ServiceProfile.load("llama-3.1-8b-h100", Path())
PATIENCE_S = 60.0
FEW = ("--set", "workload.arrivals.rate_rps=10", "--set", "warmup_s=0", "--set", "workload.duration_s=15")


class Watch:
    """The command as a process; ``until`` gives what it has said up to a line with some words."""

    def __init__(self, watching: subprocess.Popen[str]) -> None:
        self.process = watching
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, words: str) -> str:
        said = ""
        while words not in said:
            said += self._lines.get(timeout=PATIENCE_S)
        return said

    def interrupt(self) -> tuple[int, str]:
        """The exit code, and what was said that nobody has waited for."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=PATIENCE_S)
        rest = []
        while not self._lines.empty():
            rest.append(self._lines.get())
        return code, "".join(rest)


@contextmanager
def watch(folder: Path, *options: str) -> Iterator[Watch]:
    words = ["--from-run", "runs", "--watch", "0.1s", "--out", "refit", *options]
    # Where the tests were started in the background, Ctrl-C is ignored, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        command("calibrate", *words),
        cwd=folder,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as watching:
        try:
            yield Watch(watching)
        finally:
            watching.kill()


def simulated(folder: Path, *options: str) -> None:
    """One run more, of servers that keep their profile's pace."""
    out = ("--out", str(folder / "runs"), "--policy", "random")
    done = invoke("sim", "--scenario", "quickstart", "--jobs", "1", *out, *options)
    assert done.exit_code == 0, done.output


def test_each_new_run_is_looked_at_and_the_one_that_has_drifted_is_warned_of(tmp_path: Path) -> None:
    slower = tmp_path / "slower.json"
    slower.write_text(scaled_profile(PROFILE, [1.6, 1, 1, 1, 1]).to_json())
    with watch(tmp_path, "--profile", "llama-3.1-8b-h100", "--max-drift", "0.25") as watching:
        watching.until("waiting for a run in runs")
        simulated(tmp_path, *FEW)
        assert "warning" not in watching.until("profile refit/profile.json")

        simulated(tmp_path, *FEW, "--set", "workload.duration_s=1")
        assert "50 are needed; waiting for the next run" in watching.until("waiting for the next run")

        servers = ("--emulate", "2", "--speed", "4", "--set", f"servers=[{{profile: {slower}, count: 2}}]")
        words = ("--scenario", "quickstart", "--policy", "random", "--out", "runs", *servers, *FEW)
        live = process("live", *words, cwd=tmp_path)
        assert live.returncode in (0, 99), live.stderr
        said = watching.until("profile refit/profile.json")
        assert "-quickstart-random" in said
        assert "warning: llama-3.1-8b-h100 has drifted by more than 25%: decode base" in said

        assert watching.interrupt() == (130, "")
    refit = ServiceProfile.load("profile.json", tmp_path / "refit")
    assert refit.steps.decode.base_s[0] == pytest.approx(1.6 * PROFILE.steps.decode.base_s[0], rel=0.15)


def test_a_run_is_looked_at_once_and_not_before_it_is_whole(tmp_path: Path) -> None:
    simulated(tmp_path, *FEW)
    (run,) = (tmp_path / "runs").iterdir()
    # A folder that is still being written has a name like this one, and is not looked at.
    partial = shutil.copytree(run, tmp_path / "runs" / f".{run.name}.partial")
    (partial / "summary.json").touch()
    with watch(tmp_path) as watching:
        assert f"runs/{run.name}\n" in watching.until("profile refit/profile.json")
        another = shutil.copytree(run, tmp_path / "runs" / "another")
        (another / "summary.json").touch()
        assert "runs/another" in watching.until("profile refit/profile.json")
        assert watching.interrupt() == (130, "")


def test_a_live_run_of_more_servers_than_the_scenario_has(tmp_path: Path) -> None:
    words = ("--scenario", "quickstart", "--policy", "random", "--out", "runs", "--emulate", "5", "--speed", "10", *FEW)
    live = process("live", *words, cwd=tmp_path)
    assert live.returncode in (0, 99), live.stderr
    (run,) = (tmp_path / "runs").iterdir()
    told = invoke("calibrate", "--from-run", str(run), "--out", str(tmp_path / "refit"))
    assert told.exit_code == 0, told.output
    assert "llama-3.1-8b-h100, from " in told.output
