"""Launch presets, and what a launch does with a server that dies or has children."""

import asyncio
import sys
import textwrap
from pathlib import Path

import click
import psutil
import pytest

from calibrate.duration import DurationOption
from calibrate.launcher import launched_server, server_command
from calibrate.presets import load_presets, merged_flags
from simcore.errors import UserError

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
