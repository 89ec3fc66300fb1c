"""simroute as processes of their own: exit codes, streams, pipes, parallel runs."""

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest
from support.cli import ROOT, command, environment, process, tiny


def test_a_run_from_any_folder(tmp_path: Path) -> None:
    done = process("sim", "--scenario", tiny(tmp_path), "--policy", "random", "--out", "out", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "no progress where nobody looks"
    assert "\x1b" not in done.stdout, "no colours in a pipe"
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_help_needs_no_heavy_import(tmp_path: Path) -> None:
    script = (
        "import sys, simroute; from click.testing import CliRunner; CliRunner().invoke(simroute.main, ['--help']);"
        "print(sorted(set(sys.modules) & {'pandas', 'scipy', 'matplotlib', 'joblib'}))"
    )
    words = [*command()[:3], "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_mistake_exits_with_2(tmp_path: Path) -> None:
    done = process("sim", "--scenario", "quickstrat", cwd=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("simroute: unknown scenario 'quickstrat'")


def test_a_failed_gate_exits_with_99(tmp_path: Path) -> None:
    options = ("--policy", "random", "--no-out", "--fail-on", "mean_e2e_s>0")
    done = process("sim", "--scenario", tiny(tmp_path), *options, cwd=tmp_path)

    assert done.returncode == 99
    assert done.stderr.startswith("simroute: random: mean_e2e_s is ")


def test_a_defect_exits_with_1_and_a_traceback(tmp_path: Path) -> None:
    choose = "def choose(self, request, cluster): 1 / 0"
    (tmp_path / "broken.py").write_text(f"from policies import Policy\n\nclass Broken(Policy):\n    {choose}\n")
    options = ("--policy", "broken.py:Broken", "--out", "out")
    done = process("sim", "--scenario", tiny(tmp_path), *options, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert list((tmp_path / "out").iterdir()) == []


def test_processes_side_by_side_change_nothing(tmp_path: Path) -> None:
    scenario = tiny(tmp_path)
    options = ("--scenario", scenario, "--policy", "random", "--policy", "power_of_two", "--seeds", "0..1")
    for jobs in ("1", "2"):
        done = process("sim", *options, "--jobs", jobs, "--out", jobs, cwd=tmp_path, TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    (one,), (two,) = ((tmp_path / jobs).iterdir() for jobs in ("1", "2"))

    assert (one / "comparison.json").read_bytes() == (two / "comparison.json").read_bytes()
    runs = sorted(path.name for path in one.iterdir() if path.is_dir() and path.name != "plots")
    assert runs == ["power_of_two-seed0", "power_of_two-seed1", "random-seed0", "random-seed1"]
    for run in runs:
        assert (one / run / "requests.parquet").read_bytes() == (two / run / "requests.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "tiny.yaml"], "nothing temporary is left"


@pytest.mark.parametrize("arguments", [["policies"], ["sim", "--scenario", "tiny.yaml", "--jobs", "1", "--no-out"]])
def test_a_reader_that_goes_away_is_no_defect(tmp_path: Path, arguments: list[str]) -> None:
    tiny(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    words, env = command(*arguments), environment(PYTHONUNBUFFERED="1")
    done = subprocess.run(words, cwd=tmp_path, env=env, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)

    assert done.stderr == ""
    assert done.returncode in (0, 1)


def on_a_terminal(tmp_path: Path, *arguments: str, **changes: str) -> str:
    """What a process prints that holds its output for a terminal."""
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="100", **changes)
    with subprocess.Popen(command(*arguments), cwd=tmp_path, env=env, stdout=theirs, stderr=theirs) as running:
        os.close(theirs)
        printed = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not part:
                break
            printed += part
    os.close(ours)
    assert running.returncode == 0
    return printed.decode()


def test_colours_and_progress_on_a_terminal_unless_told_not_to(tmp_path: Path) -> None:
    arguments = ("sim", "--scenario", tiny(tmp_path), "--policy", "random", "--no-out")
    plain = on_a_terminal(tmp_path, *arguments, NO_COLOR="1")
    coloured, quiet = on_a_terminal(tmp_path, *arguments), on_a_terminal(tmp_path, *arguments, "--quiet")

    assert "\x1b[1;36mrandom" in coloured
    assert "\x1b[1;36m" not in plain
    assert "━" in coloured, "the progress bar"
    assert "━" not in quiet


def test_json_goes_to_stdout_alone(tmp_path: Path) -> None:
    options = ("--policy", "random", "--no-out", "--json", "--fail-on", "mean_e2e_s>0")
    done = process("sim", "--scenario", tiny(tmp_path), *options, cwd=tmp_path)

    assert json.loads(done.stdout)["gates_failed"]
    assert done.stderr.startswith("simroute: random: ")


def test_the_readmes_scenario(tmp_path: Path) -> None:
    """From another folder, so that whatever it names is found beside it."""
    scenario = str(ROOT / "docs/examples/chat.yaml")
    policy = f"{ROOT / 'docs/examples/sticky_sessions.py'}:StickySessions"
    options = ("--set", "workload.duration_s=20", "--set", "warmup_s=0", "--policy", policy, "--no-out", "--json")
    done = process("sim", "--scenario", scenario, *options, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["policy"] == "StickySessions"
