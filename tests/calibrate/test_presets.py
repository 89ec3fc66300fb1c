"""Launch presets, alone and calibrated one after the other, and what a launch does with a server that dies or has
children."""

import asyncio
import json
import sys
import textwrap
from pathlib import Path

import click
import psutil
import pytest
from support.cli import ROOT, invoke

from calibrate import neighbours
from calibrate.launcher import launched_server, server_command
from calibrate.presets import load_presets, merged_flags
from simcore.cli.duration import DurationOption
from simcore.errors import UserError
from simcore.profile import ServiceProfile

PRESETS = """\
bf16:
  model: some/model
fp8:
  model: some/model
  flags: {quantization: fp8, mem-fraction-static: 0.8, disable-radix-cache: true, enable-metrics: false}
  env: {CUDA_VISIBLE_DEVICES: "1"}
"""


def test_presets_are_read_in_order_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PRESETS)
    presets = load_presets(tmp_path / "p.yaml")
    assert list(presets) == ["bf16", "fp8"]
    assert presets["fp8"].env == {"CUDA_VISIBLE_DEVICES": "1"}
    flags = merged_flags(presets["fp8"], ("--mem-fraction-static=0.5", "--tp", "2"))
    assert flags == ["--quantization", "fp8", "--disable-radix-cache", "--mem-fraction-static=0.5", "--tp", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {speed: 1}", r"a\.speed: Extra inputs"),
        ("a: [1", "not YAML"),
        ("'a b': {}", "should match pattern"),
        ("[1]", "valid dictionary"),
    ],
)
def test_a_bad_presets_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        load_presets(tmp_path / "p.yaml")


def test_the_port_is_ours_unless_it_is_given() -> None:
    assert server_command("py", "m", ["--tp", "2"], 99)[-2:] == ["--port", "99"]
    assert server_command("py", "m", ["--port=7"], 99)[-1] == "--port=7"


def fake_python(folder: Path, code: str) -> str:
    """A program that takes the place of ``python -m sglang.launch_server``."""
    script = folder / "fake-python"
    script.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
    script.chmod(0o755)
    return str(script)


def launch(python: str, timeout_s: float = 20.0) -> None:
    async def run() -> None:
        async with launched_server("m", [], python=python, environment={}, timeout_s=timeout_s, api_key=None):
            pass

    asyncio.run(run())


@pytest.mark.parametrize(
    ("last_words", "said"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", "it ran out of memory: lower --mem-fraction-static"),
        ("OSError: [Errno 98] address already in use", "its port is taken"),
        ("ModuleNotFoundError: No module named 'sglang'", "SGLang is not installed for this Python"),
        ("OSError: Can't load the configuration of 'x'", "the model was not found"),
        ("strange", "the reason is not one known here"),
    ],
)
def test_a_server_that_dies_is_read_aloud(tmp_path: Path, last_words: str, said: str) -> None:
    python = fake_python(tmp_path, f"print({last_words!r})\nraise SystemExit(3)")
    with pytest.raises(UserError, match=rf"ended with status 3 before it was ready; {said}"):
        launch(python)


def test_the_whole_tree_is_ended_when_time_is_up(tmp_path: Path) -> None:
    python = fake_python(
        tmp_path,
        f"""
        import pathlib, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
        time.sleep(60)
        """,
    )
    with pytest.raises(UserError, match="was not ready within 2 s"):
        launch(python, timeout_s=2.0)
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert DurationOption().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "5 days", "-3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DurationOption().convert(text, None, None)


ENGINE = """
import asyncio, json, os, pathlib, sys
import psutil
sys.path[:0] = {paths!r}
from support.fake_sglang import FakeSglang

flags, seen = sys.argv[1:], pathlib.Path({seen!r})
before = json.loads(seen.read_text()) if seen.exists() else []
alive = [one["pid"] for one in before if psutil.pid_exists(one["pid"])]
gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
seen.write_text(json.dumps([*before, {{"pid": os.getpid(), "flags": flags, "gpu": gpu, "alive": alive}}]))

async def main():
    fast = "fp8" in flags
    async with FakeSglang(step_s=0.0005 if fast else 0.002).serving(int(flags[flags.index("--port") + 1])):
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_presets_are_calibrated_one_after_the_other_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the engine says of its steps is the same at any pace of the machine.
    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [])
    seen = tmp_path / "seen.json"
    python = fake_python(tmp_path, ENGINE.format(paths=[str(ROOT), str(ROOT / "tests")], seen=str(seen)))
    (tmp_path / "p.yaml").write_text(PRESETS)
    names = ("--presets", str(tmp_path / "p.yaml"), "--preset", "bf16", "--preset", "fp8")
    how = ("--python", python, "--budget", "8s", "--quiet", "--out", str(tmp_path / "out"))
    done = invoke("calibrate", *names, *how, "--", "--tp", "2")
    assert done.exit_code == 0, done.output

    launched = json.loads(seen.read_text())
    port = ["--port", launched[1]["flags"][-1]]
    start = ["-m", "sglang.launch_server", "--model-path", "some/model"]
    own = ["--quantization", "fp8", "--mem-fraction-static", "0.8", "--disable-radix-cache"]
    assert launched[1]["flags"] == [*start, *own, "--tp", "2", *port]
    assert [one["gpu"] for one in launched[1:]] == ["1"]
    # The first is gone, with its memory, before the second starts.
    assert [one["alive"] for one in launched] == [[], []]

    files = [str(tmp_path / "out" / name / "profile.json") for name in ("bf16", "fp8")]
    assert [ServiceProfile.load(file, Path()).name for file in files] == ["bf16", "fp8"]
    told = invoke("profile", "diff", *files)
    assert told.stdout in done.stdout
    terms = json.loads(invoke("profile", "diff", "--json", *files).stdout)["terms"]
    decode = next(term for term in terms if term["term"] == "decode step")
    # Three quarters less, but of that stalls are left out that the client saw, many on a busy machine.
    assert decode["mean"] < -0.4


def test_an_unknown_preset_and_one_without_a_model_are_said(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("bare: {}")
    names = ("calibrate", "--presets", str(tmp_path / "p.yaml"), "--preset")
    for name, said in (("fp9", "no preset 'fp9'; there are bare"), ("bare", "preset 'bare' has no model")):
        done = invoke(*names, name)
        assert done.exit_code == 2
        assert said in done.stderr
