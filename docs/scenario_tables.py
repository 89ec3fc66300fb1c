"""The scenario's keys as Markdown, from the schema: one table a section, outer ones first."""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["scenario_tables"]

_Schema = Mapping[str, Any]

_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_NOUNS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}


def scenario_tables(model: type[BaseModel]) -> str:
    """A heading, the text and the table of every section below ``model``; a section that recurs is written once."""
    schema = model.model_json_schema()
    writer = _Writer(schema.get("$defs", {}), _models_below(model))
    writer.section("### The top level", "", model.__name__, schema)
    return "\n\n".join(writer.blocks)


class _Writer:
    def __init__(self, definitions: Mapping[str, _Schema], models: Mapping[str, type[BaseModel]]) -> None:
        self.blocks: list[str] = []
        self._definitions = definitions
        self._models = models
        self._written: set[str] = set()

    def section(self, title: str, path: str, name: str, schema: _Schema) -> None:
        """Write a section, then those below it."""
        self._written.add(name)
        model = self._models[name]
        fields = {key: field for key, field in schema.get("properties", {}).items() if key != "kind"}
        text, meanings = _split_docstring(inspect.getdoc(model) or "", set(fields))
        meanings = _attribute_docstrings(model) | meanings
        rows = []
        for key, field in fields.items():
            default = self._default(name, key, field, schema)
            rows.append(f"| `{key}` | {self._value(field)} | {default} | {_cell(meanings.get(key, ''))} |")
        table = "\n".join(("| key | value | default | meaning |", "|---|---|---|---|", *rows)) if rows else ""
        self.blocks.append("\n\n".join(part for part in (title, text, table) if part))
        for key, field in fields.items():
            place = f"{path}.{key}" if path else key
            self._below(place + ("[]" if field.get("type") == "array" else ""), list(_targets(field)))

    def _below(self, path: str, targets: list[str]) -> None:
        targets = [target for target in targets if target not in self._written]
        kinds = {target: _kinds(self._definitions[target]) for target in targets}
        if any(kinds.values()):
            self.blocks.append(f"### `{path}`")
        for target in targets:
            tags = " or ".join(f"`kind: {kind}`" for kind in kinds[target])
            self.section(f"#### {tags}" if tags else f"### `{path}`", path, target, self._definitions[target])

    def _default(self, name: str, key: str, field: _Schema, schema: _Schema) -> str:
        if key in schema.get("required", ()):
            return "required"
        if name == "LaunchParameters":
            return "the profile's"
        match field.get("default"):
            case {"kind": kind}:
                return f"`kind: {kind}`"
            case dict() as settings if settings:
                return "its defaults"
            case default if default in (None, "", [], {}):
                return "none"
            case list() as entries:
                return ", ".join(f"`{entry['name']}`" for entry in entries)
            case default:
                return f"`{json.dumps(default).strip(chr(34))}`"

    def _value(self, field: _Schema) -> str:
        if targets := list(_targets(field)):
            kinds = [kind for target in targets for kind in _kinds(self._definitions[target])]
            what = f"mapping with `kind` {_or(kinds)}" if kinds else "mapping"
            return f"list, each a {what}" if field.get("type") == "array" else what
        if "anyOf" in field:
            return ", or ".join(self._value(variant) for variant in field["anyOf"] if variant.get("type") != "null")
        if "enum" in field or "const" in field:
            return _or(field.get("enum", [field.get("const")]))
        bounds = [f"{sign} {field[key]}" for key, sign in _BOUNDS.items() if key in field]
        return " ".join([_NOUNS.get(field.get("type", ""), "mapping"), ", ".join(bounds)]).strip()


def _or(values: list[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _targets(field: _Schema) -> Iterator[str]:
    """Names of the models that a field's value may be, in the order of the schema."""
    if "$ref" in field:
        yield str(field["$ref"]).rpartition("/")[2]
    for key in ("anyOf", "oneOf", "allOf"):
        for variant in field.get(key, ()):
            yield from _targets(variant)
    if isinstance(field.get("items"), dict):
        yield from _targets(field["items"])


def _kinds(definition: _Schema) -> list[str]:
    kind = definition.get("properties", {}).get("kind", {})
    return [kind["const"]] if "const" in kind else list(kind.get("enum", ()))


def _models_below(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every model that the fields of ``model`` mention, by its name in the schema."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[Any] = [model]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation.__name__ not in found:
                found[annotation.__name__] = annotation
                waiting += [field.annotation for field in annotation.model_fields.values()]
        else:
            waiting += getattr(annotation, "__args__", ())
    return found


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field, base classes included."""
    texts: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if cls is BaseModel or not issubclass(cls, BaseModel):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                texts[field.target.id] = inspect.cleandoc(str(text.value.value))
    return texts


def _split_docstring(text: str, keys: set[str]) -> tuple[str, dict[str, str]]:
    """A class's docstring without its list of fields (``name   meaning``), and that list."""
    kept: list[str] = []
    meanings: dict[str, str] = {}
    current = ""
    for line in text.replace("``", "`").splitlines():
        entry = re.match(r"(\w+) {2,}(\S.*)", line)
        if entry and entry[1] in keys:
            current = entry[1]
            meanings[current] = entry[2]
        elif current and line.startswith("  "):
            meanings[current] += " " + line.strip()
        else:
            current = ""
            kept.append(line)
    return "\n".join(kept).strip(), meanings


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("``", "`").replace("|", "\\|")
