from pathlib import Path

import pytest

from simcore.errors import UserError
from simcore.scenario import PolicySpec, Scenario, json_schema, load_scenario, resolved_yaml
from simcore.workload.arrivals import PoissonArrivals

TEXT = """\
name: small
workload:
  arrivals: {kind: poisson, rate_rps: 2}
  duration_s: 10
  lengths: {table: azure-conv}
servers:
  - profile: llama-3.1-8b-h100
    launch: {chunked_prefill_size: null, max_running_requests: 8}
  - {profile: llama-3.1-8b-l40s, count: 2}
policies:
  - random
  - {name: parameter_aware, params: {queue_weight: 2}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def read(path: Path, *overrides: str) -> Scenario:
    return load_scenario(str(path), overrides)


def test_what_is_given_and_what_is_not(file: Path) -> None:
    scenario = read(file)

    assert scenario.workload.arrivals == PoissonArrivals(kind="poisson", rate_rps=2)
    assert [(group.profile, group.count) for group in scenario.servers] == [
        ("llama-3.1-8b-h100", 1),
        ("llama-3.1-8b-l40s", 2),
    ]
    assert scenario.servers[0].launch.scheduling_given() == {"chunked_prefill_size": None}
    assert (scenario.seed, scenario.warmup_s, scenario.slo.bounds(), scenario.control) == (0, 0.0, {}, ())
    assert scenario.base_dir == file.parent


def test_policies_are_names_or_have_parameters(file: Path) -> None:
    first, second = read(file).policies

    assert (first.name, first.params, first.label) == ("random", {}, "random")
    assert (second.params, second.label) == ({"queue_weight": 2}, "parameter_aware(queue_weight=2)")


def test_policies_files_are_relative_to_the_scenarios(file: Path) -> None:
    near, far = read(file, "policies=[mine.py:Mine, /far/other.py:Other]").policies

    assert (near.name, near.label) == (f"{file.parent}/mine.py:Mine", "Mine")
    assert far.name == "/far/other.py:Other"


def test_four_policies_are_compared_where_none_is_named(file: Path) -> None:
    text = TEXT[: TEXT.index("policies:")]
    file.write_text(text)

    assert [policy.name for policy in read(file).policies] == ["random", "round_robin", "least_request", "power_of_two"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name=a b", "name: string should match pattern"),
        ("seed=-1", "seed: input should be greater than or equal to 0, not -1"),
        ("seed=1.5", "seed: .*not 1.5"),
        ("warmup_s=-1", "warmup_s: input should be greater than or equal to 0"),
        ("warmup_s=.inf", "warmup_s: input should be a finite number"),
        ("servers.1.count=0", r"servers.1.count: input should be greater than or equal to 1, not 0"),
        ("servers.0.launch.max_running=3", "unknown key; did you mean max_running_requests?"),
        ("servers.0.launch.mem_fraction_static=1.5", "less than 1"),
        ("router.report_interval_s=0", "greater than 0"),
        ("router.max_running_requests=0", "greater than or equal to 1"),
        ("slo.ttft_s=0", "greater than 0"),
        ("slo.ttft=1", "slo.ttft: unknown key; did you mean ttft_s?"),
        ("policies=[]", "policies: needs at least 1"),
        ("control=[{at_s: 5}]", "control.0: give exactly one of"),
        ("control=[{at_s: 5, server: s3, max_running_requests: 1}]", "no server 's3'; there are s0 to s2"),
        (
            "workload.arrivals.kind=poison",
            "arrivals.kind: unknown kind 'poison'; known are poisson, .*; did you mean",
        ),
        ("workload.arrivals={rate_rps: 1}", "workload.arrivals.kind: missing"),
        ("workload.arrivals.burst=1", "unknown key"),
    ],
)
def test_what_cannot_be_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        read(file, override)
    assert str(refused.value).startswith(f"--set {override}: ")


def test_null_lifts_a_cap_at_a_time(file: Path) -> None:
    (action,) = read(file, "control=[{at_s: 5, max_running_requests: null}]").control

    assert (action.server, action.max_running_requests) == (None, None)


def test_the_resolved_scenario_is_the_same_scenario(file: Path, tmp_path: Path) -> None:
    scenario = read(file)
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(scenario))

    assert read(again).model_dump() == scenario.model_dump()
    assert resolved_yaml(read(again)) == again.read_text()


def test_the_resolved_scenario_leaves_to_the_profile_what_is_not_given(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(read(file)))
    first, second = read(again).servers

    assert first.launch.model_fields_set == {"chunked_prefill_size", "max_running_requests"}
    assert second.launch.model_fields_set == set()


def test_the_resolved_scenario_is_good_in_any_folder(file: Path, tmp_path: Path) -> None:
    """What it names relative to its own file is named from the root, and what a variable names stays."""
    home = file.parent
    resolved = resolved_yaml(
        read(
            file,
            "servers.0.profile=mine.json",
            "workload.lengths.table=tables/mine.json",
            "policies=[mine.py:Mine, {name: random, params: {path: left.json}}]",
        )
    )
    traced = resolved_yaml(
        read(file, "workload={trace: {kind: azure-2023, path: t.csv}}", "policies=[random]"),
    )
    from_variable = resolved_yaml(read(file, "workload={trace: {kind: azure-2023, path: '${DATA}/t.csv'}}"))

    assert f"profile: {home}/mine.json" in resolved
    assert "profile: llama-3.1-8b-l40s" in resolved
    assert f"table: {home}/tables/mine.json" in resolved
    assert f"name: {home}/mine.py:Mine" in resolved
    assert "path: left.json" in resolved, "a parameter is the policy's matter"
    assert f"path: {home}/t.csv" in traced
    assert "path: ${DATA}/t.csv" in from_variable


def test_the_resolved_scenario_of_a_relative_path_is_good_in_any_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent.parent)
    scenario = load_scenario(f"{file.parent.name}/{file.name}", ["policies=[mine.py:Mine]", "servers.0.profile=p.json"])

    assert scenario.policies[0].name == f"{file.parent.name}/mine.py:Mine"
    assert f"name: {file.parent}/mine.py:Mine\n" in resolved_yaml(scenario)
    assert f"profile: {file.parent}/p.json\n" in resolved_yaml(scenario)


def test_a_policy_label_tells_two_settings_apart() -> None:
    labels = {PolicySpec(name="parameter_aware", params={"queue_weight": weight}).label for weight in (1, 2)}

    assert labels == {"parameter_aware(queue_weight=1)", "parameter_aware(queue_weight=2)"}


def test_the_schema_knows_names_for_policies() -> None:
    policy = json_schema()["$defs"]["PolicySpec"]

    assert policy["anyOf"][0] == {"type": "string"}
