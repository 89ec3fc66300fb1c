from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from simcore.errors import UserError
from simcore.scenario_file import ScenarioFile, bundled_scenarios, scenario_text, to_yaml


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int
    label: str | None = None


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = ""
    flag: bool = False
    number: float = 0.0
    text: str | None = None
    parts: list[Part] = []
    one: Part | None = None


def file(tmp_path: Path, text: str) -> ScenarioFile:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return ScenarioFile.find(str(path))


def whole(found: ScenarioFile, *overrides: str) -> Whole:
    for override in overrides:
        found.override(override)
    return found.validate(Whole)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    """The message without the folder."""
    with pytest.raises(UserError) as refused:
        whole(file(tmp_path, text), *overrides)
    return str(refused.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nflag: 3\n", "x.yaml:2: flag: input should be a valid boolean"),
        ("name: a\n\n# a remark\nnaem: b\n", "x.yaml:4: naem: unknown key; did you mean name?"),
        ("name: a\nzzz: b\n", "x.yaml:2: zzz: unknown key"),
        ("parts:\n  - size: 1\n  - size: x\n", "x.yaml:3: parts.1.size: input should be a valid integer"),
        ("parts:\n  - size: 1\n  -\n    label: x\n", "x.yaml:4: parts.1.size: missing"),
        (
            "parts:\n  - {size: 1}\n  - {size: 1,\n     siez: 2}\n",
            "x.yaml:4: parts.1.siez: unknown key; did you mean size?",
        ),
        ("name: a\none: {label: x}\n", "x.yaml:2: one.size: missing"),
        ("name: a\none: 3\n", "x.yaml:2: one: input should be a mapping, not 3"),
        ("name: a\nparts: {}\n", "x.yaml:2: parts: input should be a list"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_of_several_mistakes_the_first_is_told(tmp_path: Path) -> None:
    assert "\n" not in refusal(tmp_path, "flag: 3\nnumber: x\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("flag=3", "--set flag=3: flag: input should be a valid boolean"),
        ("parts.0.size=x", "--set parts.0.size=x: parts.0.size: input should be a valid integer"),
        ("one={label: x}", "--set one={label: x}: one.size: missing"),
        ("one.label=x", "--set one.label=x: one.size: missing"),
        ("parts.1.size=2", "--set parts.1.size=2: '1' is not an index of a list of 1"),
        ("parts.-1.size=2", "--set parts.-1.size=2: '-1' is not an index of a list of 1"),
        ("parts.x=2", "--set parts.x=2: 'x' is not an index of a list of 1"),
        ("name.x=2", "--set name.x=2: 'name' has a plain value: there is nothing below it"),
        ("=2", "--set =2: give it as path=value"),
        ("name", "--set name: give it as path=value"),
        ("name=[", "--set name=[: the value is not YAML"),
    ],
)
def test_a_mistake_in_an_override_is_told_as_such(tmp_path: Path, override: str, message: str) -> None:
    assert refusal(tmp_path, "name: a\nparts:\n  - size: 1\n", override).startswith(message)


def test_a_mistake_beside_an_override_keeps_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "name: a\nflag: 3\n", "number=2").startswith("x.yaml:2: flag")


def test_overrides_reach_into_mappings_and_lists(tmp_path: Path) -> None:
    found = file(tmp_path, "name: a\nparts:\n  - size: 1\n  - size: 2\n")
    overrides = ("parts.1.size=7", "parts.0={size: 5, label: x}", "one.size=3", "name=b", "text=", "number = 2e3")

    assert whole(found, *overrides) == Whole(
        name="b", number=2000, parts=[Part(size=5, label="x"), Part(size=7)], one=Part(size=3)
    )


def test_the_last_override_counts(tmp_path: Path) -> None:
    assert whole(file(tmp_path, "name: a\n"), "number=1", "number=2").number == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("text: no", "no"),
        ("text: on", "on"),
        ("text: 'null'", "null"),
        ("text: null", None),
        ("text: ~", None),
        ("flag: true", True),
        ("number: 1e-3", 0.001),
        ("number: 0o17", 15),
        ("number: 012", 12),
        ("number: 1_000", 1000),
    ],
)
def test_values_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    """In which no and on are words, and a leading zero is no octal number."""
    assert getattr(whole(file(tmp_path, text)), text.partition(":")[0]) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\n", "not UTF-8 text"),
        (b"name: a\n\tflag: true\n", ":2: not YAML: "),
        (b"name: a\nname: b\n", ':2: not YAML: found duplicate key "name"'),
        (b"just text\n", ":1: a scenario is a mapping"),
        (b"a: 1\n---\nb: 2\n", "not YAML: "),
    ],
)
def test_what_is_not_yaml(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        ScenarioFile.find(str(path))
    assert message in str(refused.value)


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match=r"folder.yaml: cannot be read: Is a directory"):
        ScenarioFile.find(str(tmp_path / "folder.yaml"))


def test_bundled_scenarios_are_found_by_name() -> None:
    assert bundled_scenarios() == sorted(bundled_scenarios())
    found = ScenarioFile.find("quickstart")

    assert (found.label, found.base_dir) == ("scenarios/quickstart.yaml", Path())
    assert scenario_text("quickstart").startswith("# yaml-language-server")


def test_to_yaml_keeps_the_order() -> None:
    assert to_yaml({"b": 1, "a": [1, {"d": None, "c": True}]}) == "b: 1\na:\n- 1\n- d: null\n  c: true\n"
