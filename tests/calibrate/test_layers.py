"""The RTX 4090 import: what is bundled is what the tables give, and it agrees with what was measured."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from calibrate.layers import build_layers_profile
from calibrate.measured_check import compare_with_measured
from simcore.profile import ServiceProfile
from simroute import main

NAME = "llama-3.1-8b-rtx4090"
needs_data = pytest.mark.skipif("SIMROUTE_DATA" not in os.environ, reason="needs the published data (SIMROUTE_DATA)")


def data() -> Path:
    return Path(os.environ["SIMROUTE_DATA"])


def test_the_bundled_profile_says_where_it_is_from() -> None:
    profile = ServiceProfile.load(NAME, Path())
    assert profile.provenance.engine == "vllm"
    assert profile.provenance.licence == "MIT"
    assert set(profile.provenance.samples_sha256) == {"attention.csv", "dense.csv", "per_sequence.csv"}
    # Weights of 16 GB at 1 TB/s: no step is shorter.
    assert profile.steps.floor_s == pytest.approx(0.0159, rel=0.01)


@needs_data
def test_the_bundled_profile_is_what_the_tables_give() -> None:
    folder = data() / "profiles/rtx4090-llama31-8b"
    assert build_layers_profile(folder) == ServiceProfile.load(NAME, Path())


@needs_data
def test_300_measured_requests_are_simulated_within_5_percent() -> None:
    errors = {one.name: one.error for one in compare_with_measured(data(), NAME)}
    assert abs(errors["mean E2E"]) < 0.05
    assert abs(errors["mean TPOT"]) < 0.05


@needs_data
def test_the_imports_of_the_command(tmp_path: Path) -> None:
    layers, grid = data() / "profiles/rtx4090-llama31-8b", data() / "profiles/aic_grid_llama31_8b_bf16.csv"
    for name, arguments in {
        "layers": ["--from-layers", str(layers)],
        "grid": ["--from-grid", str(grid), "--model", "llama-3.1-8b", "--system", "h100_sxm"],
    }.items():
        done = CliRunner().invoke(main, ["calibrate", *arguments, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    bundled = ServiceProfile.load("llama-3.1-8b-h100", Path())
    assert ServiceProfile.load("profile.json", tmp_path / "grid").steps == bundled.steps
    vllm = ["calibrate", "--from-grid", str(grid), "--model", "llama-3.1-8b", "--system", "h100_sxm"]
    done = CliRunner().invoke(main, [*vllm, "--backend", "none", "--out", str(tmp_path / "x")])
    assert done.exit_code == 2
    assert "no decode and prefill rows of none on h100_sxm" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give exactly one of --url, --launch, --preset, --from-grid, --from-layers"),
        (["--url", "http://x", "--launch", "m"], "give exactly one of"),
        (["--url", "http://x", "--", "--tp", "2"], "'--tp': flags of SGLang need --launch or --preset"),
        (["--url", "http://127.0.0.1:9", "--api-key-env", "NO_SUCH"], "environment variable is not set"),
        (["--url", "http://127.0.0.1:9"], "cannot be reached"),
        (["--from-grid", "g.csv"], "this import needs --model"),
        (["--from-run", "nowhere"], "nowhere is not a run folder"),
        (["--preset", "x", "--presets", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, ["calibrate", "--out", str(tmp_path), *arguments])
    assert done.exit_code == 2, done.output
    assert said in done.output
