"""Service profiles: the bundled ones, reading, refusing, and launching with other parameters."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simcore.errors import UserError
from simcore.launch import LaunchParameters
from simcore.profile import ServiceProfile, bundled_profiles

H100 = "llama-3.1-8b-h100"
KV_TOKENS = {
    "llama-2-7b-a100": 108_744,
    "llama-2-7b-h100": 107_983,
    "llama-3.1-8b-a100": 414_617,
    "llama-3.1-8b-h100": 412_220,
    "llama-3.1-8b-h200": 908_672,
    "llama-3.1-8b-l40s": 181_244,
    "llama-3.1-8b-rtx4090": 10_045,
}
CALIBRATED = "sglang-cpu-tiny"


@pytest.fixture(scope="module")
def h100() -> ServiceProfile:
    return ServiceProfile.load(H100, Path())


def test_the_bundle_is_complete() -> None:
    assert bundled_profiles() == sorted([*KV_TOKENS, CALIBRATED])


def test_the_calibrated_profile_says_how_far_to_trust_it() -> None:
    profile = ServiceProfile.load(CALIBRATED, Path())
    assert profile.measurement is not None
    assert profile.measurement.verdict != "do not trust"
    assert (profile.provenance.engine_version, profile.settings.max_running_requests) == ("0.5.23", 16)


@pytest.mark.parametrize("name", sorted(KV_TOKENS))
def test_bundled_profile_is_close_to_its_samples(name: str) -> None:
    profile = ServiceProfile.load(name, Path())
    decode, prefill, mixed = profile.residuals.decode, profile.residuals.prefill, profile.residuals.mixed
    assert profile.name == name
    assert decode is not None
    assert prefill is not None
    assert mixed is not None
    assert decode.mape < 0.025
    assert prefill.mape < 0.03
    assert mixed.mape < 0.09
    assert profile.kv_tokens_capacity == KV_TOKENS[name]
    assert profile.provenance.samples_sha256


def test_h100_capacity_by_hand(h100: ServiceProfile) -> None:
    free_mib = 81559 - 1024
    left_bytes = (free_mib - free_mib * 0.17) * 2**20 - 2 * 8_030_261_248
    assert h100.kv_tokens_capacity == pytest.approx(left_bytes / 131072, abs=1)
    assert h100.settings.max_running_requests == 2048


def test_reading_back_what_was_written(h100: ServiceProfile, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(h100.to_json())
    assert ServiceProfile.load("mine.json", tmp_path) == h100


def _drop_floor(document: dict[str, Any]) -> None:
    del document["steps"]["floor_s"]


def _negative_knee(document: dict[str, Any]) -> None:
    document["steps"]["prefill"]["knee_tokens"] = -1


def _unknown(document: dict[str, Any]) -> None:
    document["steps"]["speed"] = 1


def _version(document: dict[str, Any]) -> None:
    document["schema_version"] = 2


def _short_table(document: dict[str, Any]) -> None:
    document["steps"]["decode"]["base_s"].pop()


def _unordered_batches(document: dict[str, Any]) -> None:
    document["steps"]["decode"]["batches"][0] = 300


def _tiny_pool(document: dict[str, Any]) -> None:
    document["kv_tokens_capacity"] = 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop_floor, "steps.floor_s: Field required"),
        (_negative_knee, "steps.prefill.knee_tokens: "),
        (_unknown, "steps.speed: Extra inputs are not permitted"),
        (_version, "schema_version is 2"),
        (_short_table, "steps.decode: batches, base_s and context_s must be equally long"),
        (_unordered_batches, "steps.decode: batches must increase"),
        (_tiny_pool, "exceeds half of kv_tokens_capacity, 50"),
    ],
)
def test_a_bad_profile_is_refused_with_file_and_field(
    h100: ServiceProfile, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = json.loads(h100.to_json())
    spoil(document)
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=rf"bad\.json: .*{message}"):
        ServiceProfile.load("bad.json", tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not JSON"), ("[1]", "schema_version is None")])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=message):
        ServiceProfile.load("bad.json", tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        ServiceProfile.load("bad.json", tmp_path)


def test_a_missing_file_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file"):
        ServiceProfile.load("none.json", tmp_path)
    with pytest.raises(UserError, match=r"unknown profile 'h100'.*llama-2-7b-a100"):
        ServiceProfile.load("h100", tmp_path)


def test_nothing_given_changes_nothing(h100: ServiceProfile) -> None:
    assert h100.with_launch(LaunchParameters()) == h100


def test_mem_fraction_resizes_the_pool_and_the_default_running_limit(h100: ServiceProfile) -> None:
    small = h100.with_launch(LaunchParameters(mem_fraction_static=0.2))
    assert small.kv_tokens_capacity == pytest.approx(((81559 - 1024) * 0.2 * 2**20 - 16_060_522_496) / 131072, abs=1)
    assert small.settings.max_running_requests == 2048
    tiny = h100.with_launch(LaunchParameters(max_total_tokens=1001))
    assert (tiny.kv_tokens_capacity, tiny.settings.max_running_requests) == (1001, 500)
    long = h100.with_launch(LaunchParameters(context_length=65_536))
    assert (long.context_length, long.settings.max_running_requests) == (65_536, 412_220 * 512 // 65_536)


def test_smaller_chunks_leave_more_memory_to_the_pool(h100: ServiceProfile) -> None:
    # reserve 512 + 1.5 * 2048 + 128 + 512 + 8 * 42 < 10240, so the fraction is 1 - 10240 / 81559 = 0.874
    chunks = h100.with_launch(LaunchParameters(chunked_prefill_size=2048))
    assert chunks.kv_tokens_capacity == h100.with_launch(LaunchParameters(mem_fraction_static=0.874)).kv_tokens_capacity


def test_a_running_limit_is_kept_caps_the_graphs_and_is_halved_by_the_pool(h100: ServiceProfile) -> None:
    limited = h100.with_launch(LaunchParameters(max_running_requests=100, chunked_prefill_size=8192))
    assert limited.settings.max_running_requests == 100
    assert limited.settings.cuda_graph_max_batch == 100
    assert limited.with_launch(LaunchParameters(max_total_tokens=50)).settings.max_running_requests == 25
    assert limited.with_launch(LaunchParameters(context_length=4096)).settings.max_running_requests == 100
    own = h100.with_launch(LaunchParameters(max_running_requests=100, cuda_graph_max_batch=256))
    assert own.settings.cuda_graph_max_batch == 256


def test_the_pool_can_be_set_outright_and_is_whole_pages(h100: ServiceProfile) -> None:
    unlimited = h100.with_launch(LaunchParameters(kv_tokens_capacity=10**12))
    assert unlimited.kv_tokens_capacity == 10**12
    assert unlimited.settings.max_running_requests == 4096
    paged = h100.with_launch(LaunchParameters(kv_tokens_capacity=1000, page_size=64))
    assert paged.kv_tokens_capacity == 960
    with pytest.raises(UserError, match="mem_fraction_static needs a profile with a memory section"):
        unlimited.with_launch(LaunchParameters(mem_fraction_static=0.5))


def test_scheduling_parameters_arrive(h100: ServiceProfile) -> None:
    given = {"batching": "static", "static_batch_size": 4, "static_batch_timeout_s": 0.5, "chunked_prefill_size": -1}
    settings = h100.with_launch(LaunchParameters.model_validate(given)).settings
    assert (settings.batching, settings.static_batch_size, settings.static_batch_timeout_s) == ("static", 4, 0.5)
    assert settings.chunked_prefill_size is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context_length": 200_000}, "context_length 200000 is beyond the profile's 131072"),
        ({"max_total_tokens": 10**9}, "max_total_tokens 1000000000 exceeds the 412220 tokens"),
        ({"mem_fraction_static": 0.1}, "leaves no GPU memory"),
        ({"kv_tokens_capacity": 32, "page_size": 64}, "a KV pool of 0 tokens"),
        ({"static_batch_size": 5000}, "static_batch_size 5000 exceeds max_running_requests 2048"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(h100: ServiceProfile, given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=f"profile {H100}: .*{message}"):
        h100.with_launch(LaunchParameters.model_validate(given))
