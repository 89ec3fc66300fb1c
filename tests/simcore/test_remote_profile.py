"""What a remote API's profile may say, and how profiles of both kinds are found."""

import json
from pathlib import Path

import pytest
from support.engine import flat_profile
from support.remote import api

from simcore.errors import UserError
from simcore.launch import LaunchParameters
from simcore.profile import ServiceProfile
from simcore.remote_profile import RemoteProfile, bundled_apis, load_profile, own_profiles


def test_reading_back_what_was_written(tmp_path: Path) -> None:
    given = api(requests_per_minute=60, max_running_requests=3)
    (tmp_path / "mine.json").write_text(given.to_json())
    assert load_profile("mine.json", tmp_path) == given


def test_a_file_of_the_other_kind_is_a_service_profile(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(flat_profile().to_json())
    own = load_profile("own.json", tmp_path)
    assert isinstance(own, ServiceProfile)
    assert own_profiles([own, api()]) == [own]
    assert isinstance(load_profile("llama-3.1-8b-h100", tmp_path), ServiceProfile)


@pytest.mark.parametrize("name", bundled_apis())
def test_the_bundled_ones(name: str) -> None:
    bundled = load_profile(name, Path())
    assert isinstance(bundled, RemoteProfile)
    assert bundled.name == name
    assert bundled.model == load_profile("llama-3.1-8b-h100", Path()).model, "so that it can take its overflow"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": {"input_per_million": -1, "output_per_million": 2}}, "price.input_per_million: .*greater"),
        ({"price": {"input_per_million": 1}}, "price.output_per_million: Field required"),
        ({"requests_per_minute": 0}, "requests_per_minute: .*greater than 0"),
        ({"tokens_per_minute": -5}, "tokens_per_minute: .*greater than 0"),
        ({"output_tps": 0}, "output_tps: .*greater than 0"),
        ({"first_token_s": -0.1}, "first_token_s: .*greater than or equal"),
        ({"max_running_requests": 0}, "max_running_requests: .*greater than 0"),
        ({"speed": 3}, "speed: Extra inputs"),
        ({"schema_version": 2}, "schema_version"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(json.loads(api().to_json()) | change))
    with pytest.raises(UserError, match=rf"bad\.json: {message}"):
        load_profile("bad.json", tmp_path)


def test_what_is_not_there_is_told_with_all_that_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llama-3\.1-8b-h100.*hosted-llama-3\.1-8b; did you mean hosted-llama-3\.1-8b"):
        load_profile("hosted-llama-3.1-8", tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_profile("none.json", tmp_path)


def test_nobody_launches_an_api() -> None:
    assert api().with_launch(LaunchParameters()) == api()
    with pytest.raises(UserError, match="a remote API takes no launch parameters, such as page_size"):
        api().with_launch(LaunchParameters(page_size=16))
