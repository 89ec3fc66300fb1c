"""The commands beside ``sim``, and what all have in common."""

import json
from importlib import metadata
from pathlib import Path

import pytest
from support.cli import invoke, tiny

from policies import policy_descriptions
from simcore.cli.options import PolicyOption
from simcore.scenario import json_schema, load_scenario
from simcore.scenario_file import bundled_scenarios

COMMANDS = (
    [],
    ["sim"],
    ["policies"],
    ["scenarios"],
    ["scenarios", "show"],
    ["scenarios", "init"],
    ["compare"],
    ["validate"],
    ["whatif"],
    ["check"],
    ["schema"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(command: list[str], flag: str) -> None:
    result = invoke(*command, flag)

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {' '.join(['simroute', *command])}")
    assert result.stderr == ""


def test_the_help_lists_the_commands_in_the_order_of_use() -> None:
    listed = invoke("--help").stdout.partition("Commands:")[2].split("\n")

    # Indented by two: a name; by more: where a description goes on.
    commands = [line.split()[0] for line in listed if line.startswith("  ") and not line.startswith("   ")]
    assert commands[:6] == ["sim", "live", "calibrate", "validate", "compare", "whatif"]
    assert commands[6:] == ["tune", "policies", "scenarios", "profile", "serve", "emulate", "check", "schema"]


def test_version() -> None:
    assert metadata.version("simroute") in invoke("--version").stdout


def test_an_unknown_command() -> None:
    result = invoke("simm")

    assert result.exit_code == 2
    assert "No such command 'simm'" in result.stderr


def test_policies_with_their_parameters_and_sources() -> None:
    text = invoke("policies").stdout

    for policy in policy_descriptions():
        assert f"{policy.name}\n  {policy.summary[:60]}" in text
    assert "queue_weight=1.0 (float): " in text
    assert "needs: expected_output_tokens" in text
    assert "wspt: greatest (1 + priority) / prompt tokens first" in text


def test_all_about_one_policy() -> None:
    text = invoke("policies", "cache_aware").stdout

    assert "The router keeps its own radix tree" in text
    assert "Hurts: little is shared" in text
    assert "round_robin" not in text
    refused = invoke("policies", "cache_awre")
    assert refused.exit_code == 2
    assert "did you mean cache_aware?" in refused.stderr


def test_a_policys_parameters_may_be_lists_and_mappings() -> None:
    convert = PolicyOption().convert
    given = "llm_d:scorers={prefix: 3, queue: 2},cache_tokens=1000,context_ranges={s0: [0, 2048], s1: [2049, 9999]}"
    assert convert(given, None, None) == (
        "llm_d",
        {
            "scorers": {"prefix": 3, "queue": 2},
            "cache_tokens": 1000,
            "context_ranges": {"s0": [0, 2048], "s1": [2049, 9999]},
        },
    )
    nested = "concurrency_gate:policy=cache_aware,params={cache_threshold: 0.5},max_concurrency=64"
    assert convert(nested, None, None)[1] == {
        "policy": "cache_aware",
        "params": {"cache_threshold": 0.5},
        "max_concurrency": 64,
    }


def test_policies_as_json() -> None:
    listed = json.loads(invoke("policies", "--json").stdout)

    assert [policy["name"] for policy in listed] == [policy.name for policy in policy_descriptions()]
    keys = ["name", "summary", "source", "definition", "helps", "hurts", "parameters", "needs", "order"]
    assert list(listed[0]) == keys
    (aware,) = (policy for policy in listed if policy["name"] == "parameter_aware")
    assert list(aware["parameters"][0]) == ["name", "type", "default", "meaning", "search"]


def test_scenarios() -> None:
    text = invoke("scenarios").stdout
    listed = json.loads(invoke("scenarios", "--json").stdout)

    assert [scenario["name"] for scenario in listed] == bundled_scenarios()
    for scenario in listed:
        assert f"{scenario['name']}\n  {scenario['description'][:60]}" in text


def test_show_prints_the_file_with_its_comments() -> None:
    text = invoke("scenarios", "show", "quickstart").stdout

    assert "name: quickstart\n" in text
    assert "\n# Start here" in text


def test_show_of_an_unknown_scenario() -> None:
    result = invoke("scenarios", "show", "quickstrat")

    assert result.exit_code == 2
    assert result.stderr.endswith("did you mean quickstart?\n")


def test_init_copies_a_scenario_that_runs_and_its_schema(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    result = invoke("scenarios", "init", "quickstart", str(mine))

    assert result.exit_code == 0
    assert f"simroute sim --scenario {mine}" in result.stderr
    assert load_scenario(str(mine)).model_dump() == load_scenario("quickstart").model_dump()
    assert json.loads((tmp_path / "scenario.schema.json").read_text()) == json_schema()
    assert mine.read_text().startswith("# yaml-language-server: $schema=scenario.schema.json\n")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("there.yaml", "there.yaml: is there already"),
        ("mine.txt", "mine.txt: a scenario's file ends in .yaml"),
        ("none/mine.yaml", "none/mine.yaml: cannot be written: No such file or directory"),
    ],
)
def test_init_overwrites_nothing(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "there.yaml").write_text("mine")
    result = invoke("scenarios", "init", "quickstart", str(tmp_path / file))

    assert result.exit_code == 2
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_check_says_what_would_run(tmp_path: Path) -> None:
    result = invoke("check", tiny(tmp_path), "--set", "servers.0.count=3")

    assert result.exit_code == 0
    assert result.stdout.startswith("tiny is valid: ")
    assert result.stdout.endswith(" requests, 3 servers, policies random, least_request\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("workload.arivals=1", "unknown key; did you mean arrivals?"),
        ("policies=[rondom]", "unknown policy 'rondom'"),
        ("servers.0.profile=none.json", "none.json: cannot be read"),
        ("workload.lengths.prompt.tokens=200000", "is longer than 131065"),
        ("warmup_s=30", "nothing is left to measure"),
    ],
)
def test_check_finds_what_sim_would_refuse(tmp_path: Path, override: str, message: str) -> None:
    result = invoke("check", tiny(tmp_path), "--set", override)

    assert result.exit_code == 2
    assert message in result.stderr


def test_schema_is_json() -> None:
    schema = json.loads(invoke("schema").stdout)

    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) >= {"name", "workload", "servers", "policies"}
