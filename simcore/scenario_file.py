"""Scenario files: YAML with line numbers, overrides from the command line, and errors that say where."""

import importlib.resources
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from .errors import UserError, did_you_mean
from .scenario_keys import hint

__all__ = ["SCHEMA_FILE", "ScenarioFile", "bundled_scenarios", "scenario_text", "to_yaml"]

SCHEMA_FILE = "scenario.schema.json"
"""What a scenario's first line names for editors; `simroute schema` prints it."""

_Model = TypeVar("_Model", bound=BaseModel)
_Path = tuple[str | int, ...]


def bundled_scenarios() -> list[str]:
    """Names of the scenarios that ship with simroute, sorted."""
    folder = importlib.resources.files("scenarios")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def scenario_text(name: str) -> str:
    """The YAML of a bundled scenario. Raises UserError."""
    names = bundled_scenarios()
    if name not in names:
        known = f"{', '.join(names)}{did_you_mean(name, names)}"
        raise UserError(f"unknown scenario {name!r}: give the path of a .yaml file or one of {known}")
    return (importlib.resources.files("scenarios") / f"{name}.yaml").read_text(encoding="utf-8")


def to_yaml(document: Mapping[str, Any]) -> str:
    """Plain data as YAML, in the order given."""
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 1_000_000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(document), stream)
    return stream.getvalue()


@dataclass(slots=True)
class ScenarioFile:
    """A parsed file. ``label`` stands for it in messages, ``base_dir`` is what its relative paths are relative to."""

    label: str
    base_dir: Path
    document: CommentedMap
    _overridden: dict[_Path, str] = field(default_factory=dict)

    @classmethod
    def find(cls, name_or_path: str) -> Self:
        """A bundled name, or the path of a ``.yaml`` file. Raises UserError."""
        if not name_or_path.endswith((".yaml", ".yml")):
            return cls(f"scenarios/{name_or_path}.yaml", Path(), _parse(name_or_path, scenario_text(name_or_path)))
        path = Path(name_or_path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text: {error}") from error
        return cls(str(path), path.parent, _parse(str(path), text))

    def override(self, text: str) -> None:
        """Apply ``a.b=value``; the value is YAML, a number in the path an index. Raises UserError."""
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UserError(f"--set {text}: give it as path=value, for example workload.arrivals.rate_rps=20")
        steps = key.strip().split(".")
        path = tuple(int(step) if step.isdigit() else step for step in steps)
        parent: Any = self.document
        for depth, step in enumerate(steps[:-1], 1):
            if isinstance(parent, CommentedMap) and parent.get(step) is None:
                parent[step] = CommentedMap()
                self._overridden[path[:depth]] = text
            parent = _child(parent, step, text)
        try:
            parsed = YAML(typ="safe", pure=True).load(value) if value.strip() else None
        except YAMLError as error:
            raise UserError(f"--set {text}: the value is not YAML") from error
        if isinstance(parent, CommentedSeq):
            _check_index(parent, steps[-1], text)
            parent[int(steps[-1])] = parsed
        else:
            parent[steps[-1]] = parsed
        self._overridden[path] = text

    def validate(self, model: type[_Model]) -> _Model:
        """The document as a model. Raises UserError with the first mistake, its file and line, or its override."""
        try:
            return model.model_validate(self.document)
        except ValidationError as error:
            details = error.errors()
            raise UserError("\n".join(self._explain(detail, model) for detail in details[:1])) from error

    def _explain(self, detail: ErrorDetails, model: type[BaseModel]) -> str:
        path = self._locate(detail["loc"])
        if detail["type"].startswith("union_tag"):
            path += ("kind",)
        field_name = ".".join(str(step) for step in path)
        message = _message(detail)
        if detail["type"] == "extra_forbidden":
            message += hint(model, detail["loc"])
        where = f"{field_name}: " if field_name else ""
        for length in range(len(path), 0, -1):
            if path[:length] in self._overridden:
                return f"--set {self._overridden[path[:length]]}: {where}{message}"
        return f"{self.label}:{self._line(path)}: {where}{message}"

    def _locate(self, location: tuple[int | str, ...]) -> _Path:
        """The path within the document, without the names of union members that pydantic puts in."""
        path: list[str | int] = []
        node: Any = self.document
        for index, step in enumerate(location):
            present = (isinstance(node, Mapping) and step in node) or (
                isinstance(node, list) and isinstance(step, int) and step < len(node)
            )
            if present:
                node = node[step]
                path.append(step)
            elif index == len(location) - 1 and isinstance(node, Mapping):
                # A field that is missing: its name is all there is of it.
                path.append(step)
                return tuple(path)
        return tuple(path)

    def _line(self, path: _Path) -> int:
        """The line, counted from 1, of the deepest part of a path that the file has."""
        line = 0
        node: Any = self.document
        for step in path:
            if isinstance(node, CommentedMap) and step in node:
                position = node.lc.key(step) if step in (node.lc.data or {}) else None
            elif isinstance(node, CommentedSeq) and isinstance(step, int) and step < len(node):
                position = node.lc.item(step) if step in (node.lc.data or {}) else None
            else:
                break
            if position is not None:
                line = position[0]
            node = node[step]
        return line + 1


def _parse(label: str, text: str) -> CommentedMap:
    try:
        document = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{label}:{line}: not YAML: {error.problem}") from error
    except YAMLError as error:
        raise UserError(f"{label}: not YAML: {error}") from error
    if not isinstance(document, CommentedMap):
        raise UserError(f"{label}:1: a scenario is a mapping of name, workload, servers and more")
    return document


def _child(parent: CommentedMap | CommentedSeq, step: str, text: str) -> CommentedMap | CommentedSeq:
    if isinstance(parent, CommentedSeq):
        _check_index(parent, step, text)
    child = parent[int(step) if isinstance(parent, CommentedSeq) else step]
    if not isinstance(child, CommentedMap | CommentedSeq):
        raise UserError(f"--set {text}: {step!r} has a plain value: there is nothing below it")
    return child


def _check_index(parent: CommentedSeq, step: str, text: str) -> None:
    if not step.isdigit() or int(step) >= len(parent):
        raise UserError(f"--set {text}: {step!r} is not an index of a list of {len(parent)}")


def _message(detail: ErrorDetails) -> str:
    """In the words of YAML, where pydantic's are those of Python."""
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return "unknown key"
        case "missing":
            return "missing"
        case "union_tag_not_found":
            return "missing"
        case "union_tag_invalid":
            kinds = re.findall(r"'(.+?)'", detail["ctx"]["expected_tags"])
            tag = detail["ctx"]["tag"]
            return f"unknown kind {tag!r}; known are {', '.join(kinds)}{did_you_mean(tag, kinds)}"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ")
        case "too_short":
            return f"needs at least {detail['ctx']['min_length']}"
        case "model_type" | "dict_type":
            message = "input should be a mapping"
        case "tuple_type" | "list_type":
            message = "input should be a list"
        case _:
            message = detail["msg"][0].lower() + detail["msg"][1:]
    plain = isinstance(given, str | int | float | bool) or given is None
    return f"{message}, not {given!r}" if plain else message
