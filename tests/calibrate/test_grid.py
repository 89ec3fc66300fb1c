"""From tables of measurements to profiles: small tables with planted times, and the published ones where at hand."""

import itertools
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from calibrate.grid import GRIDS, build_profile, main
from calibrate.mixed import MixedFit, fit_mixed
from calibrate.tables import read_table
from simcore.errors import UserError
from simcore.profile import ServiceProfile, bundled_profiles
from simcore.profile_parts import Residual

MIXED = MixedFit(2.5, *[Residual(samples=1, mape=0.05, max_abs=0.1)] * 2)
H100 = next(grid for grid in GRIDS if grid.name == "llama-3.1-8b-h100")


def write_layers(folder: Path, ratio: float) -> None:
    """Layer times in which decode rows cost ``ratio`` times as much per token of context beside a chunk as alone."""
    attention = ["prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"]
    for chunk, cached, rows, context in itertools.product([0, 64, 256, 512], [0, 1024], [0, 1, 8, 64], [16, 256, 512]):
        if chunk or rows:
            chunk_us = 1e-4 * chunk * (cached + chunk / 2)
            decode_us = 0.05 * rows * context * (ratio if chunk else 1.0)
            attention.append(f"{chunk},{cached},{rows},{context if rows else 0},{10 + chunk_us + decode_us}")
    layers = [
        "qkv_proj",
        "rotary_emb",
        "o_proj",
        "gate_up_proj",
        "act_fn",
        "down_proj",
        "layernorm",
        "embedding",
        "final_layernorm",
    ]
    dense = [f"{layer},{tokens},{100 + tokens}" for layer in layers for tokens in (1, 2048)]
    heads = [f"{layer},{sequences},{50 + sequences}" for layer in ("lm_head", "sampler") for sequences in (1, 128)]
    (folder / "attention.csv").write_text("\n".join(dict.fromkeys(attention)))
    (folder / "dense.csv").write_text("\n".join(["layer,tokens,time_us", *dense]))
    (folder / "per_sequence.csv").write_text("\n".join(["layer,sequences,time_us", *heads]))


def write_grid(folder: Path) -> None:
    """Decode of 6 + 0.01 ms a row and 5e-5 ms a token; prefill of 7 + 0.02 ms a token; other rows to be left out."""
    rows = ["system,backend,version,phase,batch,isl,ms"]
    for batch, isl in itertools.product([1, 8, 64], [128, 1024, 4096]):
        rows.append(f"h100_sxm,sglang,0.5.14,decode,{batch},{isl},{6 + 0.01 * batch + 5e-5 * batch * isl}")
        rows.append(f"h100_sxm,vllm,0.24.0,decode,{batch},{isl},99")
        rows.append(f"l40s,sglang,0.5.14,decode,{batch},{isl},99")
    for batch, isl in itertools.product([1, 4], [16, 256, 1024, 4096]):
        rows.append(f"h100_sxm,sglang,0.5.14,prefill,{batch},{isl},{7 + 0.02 * batch * isl}")
    (folder / H100.file).write_text("\n".join(rows))
    layers = folder / "rtx4090-llama31-8b"
    layers.mkdir()
    write_layers(layers, 2.0)


def test_the_cost_of_riding_along_is_recovered(tmp_path: Path) -> None:
    write_layers(tmp_path, 2.5)
    found = fit_mixed(tmp_path)
    assert found.decode_context_ratio == pytest.approx(2.5, abs=0.02)
    assert found.term.mape < 0.01


def test_a_grid_becomes_a_profile(tmp_path: Path) -> None:
    write_grid(tmp_path)
    profile = build_profile(H100, tmp_path, MIXED)
    assert profile.steps.decode.base_s == pytest.approx([0.00601, 0.00608, 0.00664], rel=1e-4)
    assert profile.steps.decode.context_s == pytest.approx([5e-8] * 3, rel=1e-4)
    assert profile.steps.prefill.per_token_s == pytest.approx(2e-5, rel=1e-3)
    assert profile.steps.mixed.decode_context_ratio == 2.5
    assert profile.steps.floor_s == pytest.approx(16_060_522_496 / 3.35e12, rel=1e-3)
    assert (profile.valid_range.max_batch, profile.valid_range.max_context_tokens) == (64, 4096)
    assert profile.valid_range.max_prefill_tokens == 16_384
    assert profile.provenance.engine_version == "0.5.14"
    assert profile.settings.chunked_prefill_size == 8192


def test_equal_tables_give_equal_profiles(tmp_path: Path) -> None:
    write_grid(tmp_path)
    assert build_profile(H100, tmp_path, MIXED).to_json() == build_profile(H100, tmp_path, MIXED).to_json()


def test_a_grid_without_the_system_is_refused(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (tmp_path / H100.file).write_text("system,backend,version,phase,batch,isl,ms\nl40s,sglang,1,decode,1,1,1\n")
    with pytest.raises(UserError, match=r"no decode and prefill rows of sglang on h100_sxm"):
        build_profile(H100, tmp_path, MIXED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"t\.csv: cannot be read: No such file"),
        ("", "not a CSV table"),
        ("layer,tokens\na,1\n", "no column 'time_us'; it has layer, tokens"),
        ("layer,time_us\na,1\nb,fast\n", "line 3: time_us is 'fast', not a number"),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "t.csv", ["layer"], ["time_us"])


def test_a_missing_layer_is_refused(tmp_path: Path) -> None:
    write_layers(tmp_path, 2.0)
    (tmp_path / "per_sequence.csv").write_text("layer,sequences,time_us\nlm_head,1,50\n")
    with pytest.raises(UserError, match=r"per_sequence\.csv: no rows of layer 'sampler'"):
        fit_mixed(tmp_path)


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "attention.csv: cannot be read" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("SIMROUTE_DATA" not in os.environ, reason="needs the published grids (SIMROUTE_DATA)")
def test_the_bundled_profiles_are_what_the_published_grids_give(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--data", os.environ["SIMROUTE_DATA"], "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = sorted(file.stem for file in tmp_path.iterdir())
    assert set(written) <= set(bundled_profiles())
    assert len(written) == len(GRIDS)
    for name in written:
        assert ServiceProfile.load(f"{name}.json", tmp_path) == ServiceProfile.load(name, tmp_path)
