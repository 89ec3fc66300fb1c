"""Launch parameters and scheduler settings: what is accepted, what is refused, what counts as given."""

import pytest
from pydantic import ValidationError

from simcore.launch import LaunchParameters, SchedulerSettings


def test_defaults_are_those_of_sglang() -> None:
    settings = SchedulerSettings(max_running_requests=64, cuda_graph_max_batch=256)
    assert settings.schedule_policy == "fcfs"
    assert settings.max_prefill_tokens == 16384
    assert settings.page_size == 1
    assert settings.max_queued_requests is None
    assert (settings.radix_cache, settings.overlap, settings.mixed_chunk) == (True, True, False)


def test_minus_one_switches_chunking_off() -> None:
    assert LaunchParameters.model_validate({"chunked_prefill_size": -1}).chunked_prefill_size is None


def test_only_what_is_given_counts_as_given() -> None:
    launch = LaunchParameters.model_validate(
        {"chunked_prefill_size": -1, "mixed_chunk": True, "max_running_requests": 8}
    )
    assert launch.scheduling_given() == {"chunked_prefill_size": None, "mixed_chunk": True}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_running_requests", 0),
        ("max_queued_requests", -3),
        ("chunked_prefill_size", 0),
        ("page_size", 0),
        ("mem_fraction_static", 1.0),
        ("mem_fraction_static", 0.0),
        ("schedule_conservativeness", 0.0),
        ("schedule_conservativeness", float("inf")),
        ("static_batch_timeout_s", -0.1),
        ("cuda_graph_max_batch", -1),
        ("schedule_policy", "hrrn"),
        ("batching", "dynamic"),
        ("max_conccurency", 4),
    ],
)
def test_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        LaunchParameters.model_validate({field: value})


@pytest.mark.parametrize("other", ["mem_fraction_static", "max_total_tokens"])
def test_the_pool_is_sized_one_way(other: str) -> None:
    with pytest.raises(ValidationError, match=f"remove {other}"):
        LaunchParameters.model_validate({"kv_tokens_capacity": 1000, other: 0.5 if "fraction" in other else 10})


def test_settings_must_agree_with_each_other() -> None:
    base = {"max_running_requests": 8, "cuda_graph_max_batch": 8}
    with pytest.raises(ValidationError, match="chunked_prefill_size 100 is not a multiple of page_size 64"):
        SchedulerSettings.model_validate(base | {"chunked_prefill_size": 100, "page_size": 64})
    with pytest.raises(ValidationError, match="static_batch_size 9 exceeds max_running_requests 8"):
        SchedulerSettings.model_validate(base | {"static_batch_size": 9})
    with pytest.raises(ValidationError, match="shortest-prefill-first needs radix_cache"):
        SchedulerSettings.model_validate(base | {"schedule_policy": "shortest-prefill-first", "radix_cache": False})
