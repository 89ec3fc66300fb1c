"""A user's mistake is one clear message on stderr and exit code 2, and nothing is written."""

import json
import re
from importlib import resources
from pathlib import Path

import pytest
from support.cli import TINY, invoke, sim, tiny

POLICIES = """\
from policies import Hold, Policy, Route


class Unknown(Policy):
    def choose(self, request, cluster):
        return Route("s0" if request.request_id < 50 else "s99")


class Nothing(Policy):
    def choose(self, request, cluster):
        return None


class Holds(Policy):
    def choose(self, request, cluster):
        return Hold()


class Broken(Policy):
    def choose(self, request, cluster):
        raise ZeroDivisionError("of the policy's own")
"""
PROFILE = (resources.files("scenarios") / "profiles/llama-3.1-8b-h100.json").read_text()
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n"


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*")) if folder.exists() else []


def refused(tmp_path: Path, *arguments: str, env: dict[str, str | None] | None = None) -> str:
    """The one message with which ``simroute sim`` refuses; nothing else is said or left."""
    out = tmp_path / "out"
    result = sim("--out", str(out), *arguments, env=env)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert written(out) == []
    assert result.stderr.startswith("simroute: ")
    assert result.stderr.count("\n") == 1, "one message"
    return result.stderr.removeprefix("simroute: ").rstrip()


def with_trace(tmp_path: Path, content: str | None) -> dict[str, str | None]:
    """The environment in which azure-conv finds this as its trace."""
    folder = tmp_path / "data/traces/azure-2023"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "AzureLLMInferenceTrace_conv.csv").write_text(content)
    return {"SIMROUTE_DATA": str(tmp_path / "data")}


def test_an_unknown_key_is_told_with_its_line_and_the_one_that_was_meant(tmp_path: Path) -> None:
    scenario = tiny(tmp_path, text=TINY.replace("duration_s", "durration_s"))

    assert refused(tmp_path, "--scenario", scenario) == (
        f"{scenario}:6: workload.durration_s: unknown key; did you mean duration_s?"
    )


def test_an_impossible_value_is_told_with_its_line(tmp_path: Path) -> None:
    scenario = tiny(tmp_path, text=TINY.replace("rate_rps: 10", "rate_rps: -10"))

    assert refused(tmp_path, "--scenario", scenario) == (
        f"{scenario}:5: workload.arrivals.rate_rps: input should be greater than 0, not -10"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--set workload.arrivals.rate_rps=-1", "--set workload.arrivals.rate_rps=-1: .* greater than 0, not -1"),
        ("--set workload.lengths.prompt.tokens=200000", "a prompt of 200000 tokens is longer than 131065, the most"),
        ("--set servers=[]", "servers: needs at least 1"),
        ("--set servers.2.count=1", "'2' is not an index of a list of 1"),
        ("--set name", "give it as path=value"),
        ("--set name=[", "the value is not YAML"),
        ("--set workload.duration_s.x=1", "'duration_s' has a plain value: there is nothing below it"),
        ("--set slo=7", "slo: input should be a mapping, not 7"),
        ("--set servers=x", "servers: input should be a list, not 'x'"),
        ("--set servers.0.profile=llama-3.1-8b-h10", "unknown profile .*; did you mean llama-3.1-8b-h100?"),
        ("--set servers.0.profile=none.json", "none.json: cannot be read: No such file or directory"),
        ("--set router.queue_order=fcsf", "unknown queue order 'fcsf'; known: fcfs, .*; did you mean fcfs?"),
        ("--set workload.trace={kind: azure-2023, path: x.csv}", "workload: "),
        ("--set control=[{at_s: 1, server: s9, max_running_requests: 1}]", "no server 's9'; there are s0 to s1"),
        ("--set warmup_s=100", "nothing is left to measure: the last request arrives at 20 s, and warmup_s is 100"),
        ("--policy leest_request", "unknown policy 'leest_request'; .*; did you mean least_request?"),
        ("--policy parameter_aware:queue_wieght=2", "has no parameter 'queue_wieght'; .*; did you mean queue_weight?"),
        ("--policy parameter_aware:queue_weight=high", "queue_weight must be of type float, not 'high'"),
        ("--policy none.py:Mine", "no policy file none.py"),
        ("--policy random --policy random", "policy random is given twice"),
        ("--rank-by p99_ttft", "unknown metric 'p99_ttft'; .*; did you mean p99_ttft_s?"),
        ("--rank-by goodput_rps --set slo={}", "needs an slo, and the scenario sets none"),
        ("--fail-on p99_tft_s>1", "--fail-on p99_tft_s>1: unknown metric .*; did you mean p99_ttft_s?"),
        ("--fail-on p99_ttft_s=1", "give it as METRIC>VALUE"),
        ("--fail-on goodput_rps<1 --set slo={}", "goodput_rps needs an slo"),
    ],
)
def test_a_mistake_is_one_message(tmp_path: Path, options: str, message: str) -> None:
    arguments = [word for part in options.split("--")[1:] for word in ("--" + part.strip()).split(" ", 1)]

    assert re.search(message, refused(tmp_path, "--scenario", tiny(tmp_path), *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "3..1"], "3..1 is empty"),
        (["--seeds", "1,1"], "a seed is given twice"),
        (["--seeds", "x"], "give seeds as 0..4 or 1,5,7"),
        (["--seeds", "0..1", "--seed", "1"], "--seed and --seeds exclude each other"),
        (["--policy", "random:alpha"], "'alpha' is not PARAMETER=VALUE"),
        (["--policy", ""], "give it as NAME, FILE.py:CLASS"),
        (["--jobs", "0"], "0 is not in the range"),
        (["--speed", "9"], "No such option"),
    ],
)
def test_a_mistake_in_an_option_shows_how_it_is_used(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = sim("--scenario", tiny(tmp_path), "--no-out", *arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert "Usage: " in result.stderr


def test_the_scenario_is_needed() -> None:
    result = sim()

    assert result.exit_code == 2
    assert "Missing option '--scenario'" in result.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstrat", "unknown scenario 'quickstrat': .*; did you mean quickstart?"),
        ("none.yaml", "none.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_scenario_that_is_not_there(tmp_path: Path, name: str, message: str) -> None:
    assert re.search(message, refused(tmp_path, "--scenario", name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nworkload: [\n", ":3: not YAML: "),
        ("name: x\nname: y\n", ':2: not YAML: found duplicate key "name"'),
        ("- 1\n", ":1: a scenario is a mapping of name, workload, servers and more"),
        ("", ":1: a scenario is a mapping of name, workload, servers and more"),
        ("name: x\n", ":1: workload: missing"),
    ],
)
def test_a_file_that_is_no_scenario(tmp_path: Path, text: str, message: str) -> None:
    scenario = tiny(tmp_path, text=text)

    assert f"{scenario}{message}" in refused(tmp_path, "--scenario", scenario)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PROFILE[: len(PROFILE) // 2], "not JSON: "),
        (json.dumps({**json.loads(PROFILE), "schema_version": 99}), "schema_version is 99, but 1 is what can be read"),
        ("[]", "broken.json"),
        (b"\xff\xfe\x00", "broken.json"),
    ],
)
def test_a_profile_that_cannot_be_read(tmp_path: Path, content: str | bytes, message: str) -> None:
    (tmp_path / "broken.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    told = refused(tmp_path, "--scenario", tiny(tmp_path), "--set", "servers.0.profile=broken.json")

    assert message in told
    assert "broken.json" in told


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("Unknown", "policy Unknown routed request 50 to the unknown server 's99' (servers: s0, s1)"),
        ("Nothing", "policy Nothing: choose() must return Route, Hold or Reject, not None"),
        ("Holds", "policy Holds holds "),
        ("Absent", "policies.py has no Policy subclass named 'Absent'"),
    ],
)
@pytest.mark.parametrize("beside", [(), ("--policy", "random")], ids=["alone", "with another"])
def test_a_policy_that_cannot_be_followed(tmp_path: Path, policy: str, message: str, beside: tuple[str, ...]) -> None:
    """Also where another policy's run has ended already."""
    (tmp_path / "policies.py").write_text(POLICIES)

    options = (*beside, "--policy", f"{tmp_path}/policies.py:{policy}")
    assert message in refused(tmp_path, "--scenario", tiny(tmp_path), *options)


@pytest.mark.parametrize("beside", [(), ("--policy", "random")], ids=["alone", "with another"])
def test_a_policys_own_exception_is_no_mistake_of_the_users(tmp_path: Path, beside: tuple[str, ...]) -> None:
    (tmp_path / "policies.py").write_text(POLICIES)
    options = ("--scenario", tiny(tmp_path), *beside, "--policy", f"{tmp_path}/policies.py:Broken")
    with pytest.raises(ZeroDivisionError, match="of the policy's own"):
        sim("--out", str(tmp_path / "out"), *options)

    assert written(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "AzureLLMInferenceTrace_conv.csv: no such trace file"),
        (
            TRACE + "2023-11-16 18:15:50.9951690,abc,109\n",
            ".csv:3: column 'ContextTokens': 'abc' is not a whole",
        ),
        (TRACE + "yesterday,374,44\n", ".csv:3: column 'TIMESTAMP'"),
        (TRACE.replace(",GeneratedTokens", ""), ".csv:1: column 'GeneratedTokens': missing"),
        ("", ".csv:1: the file is empty"),
    ],
)
@pytest.mark.parametrize("command", ["sim", "check"])
def test_a_bad_trace(tmp_path: Path, command: str, content: str | None, message: str) -> None:
    """File, line and column of what is wrong, and where a good one comes from."""
    env = with_trace(tmp_path, content)
    if command == "sim":
        told = refused(tmp_path, "--scenario", "azure-conv", env=env)
    else:
        result = invoke("check", "azure-conv", env=env)
        assert result.exit_code == 2
        told = result.stderr

    assert message in told
    assert "This trace comes from the repository Azure/AzurePublicDataset" in told


def test_where_traces_are_has_to_be_said(tmp_path: Path) -> None:
    told = refused(tmp_path, "--scenario", "azure-conv", env={"SIMROUTE_DATA": None})

    assert "needs the environment variable SIMROUTE_DATA, which is not set" in told
    assert "the repository Azure/AzurePublicDataset" in told


def test_results_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    scenario = tiny(tmp_path)
    below = sim("--scenario", scenario, "--out", str(tmp_path / "file/below"))
    itself = sim("--scenario", scenario, "--out", str(tmp_path / "file"))

    assert (below.exit_code, itself.exit_code) == (2, 2)
    assert "file/below: it is, or lies below, a file" in below.stderr
    assert "file' is a file" in itself.stderr
    assert (tmp_path / "file").read_text() == ""
