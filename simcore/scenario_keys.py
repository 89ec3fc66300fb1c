"""Which keys a scenario may have at a place, to suggest the one that was meant."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from .errors import did_you_mean

__all__ = ["hint"]

_Schema = Mapping[str, Any]


def hint(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """``; did you mean ...?`` with the known key that looks most like the unknown one at ``location`` (as in pydantic's
    errors), or nothing."""
    root = model.model_json_schema()
    places: list[_Schema] = [root]
    for step in location[:-1]:
        places = [below for place in places for below in _step(root, place, step)]
    keys = {key for place in places for option in _options(root, place) for key in option.get("properties", {})}
    return did_you_mean(str(location[-1]), keys)


def _step(root: _Schema, place: _Schema, step: int | str) -> Iterator[_Schema]:
    """What ``step`` leads to: a property, a list's items, or the member of a union whose tag it is."""
    for option in _options(root, place):
        if isinstance(step, int):
            if "items" in option:
                yield option["items"]
        elif step in option.get("properties", {}):
            yield option["properties"][step]
        elif option.get("properties", {}).get("kind") is not None and step in _tags(option):
            yield option


def _tags(option: _Schema) -> Sequence[str]:
    kind = option["properties"]["kind"]
    return kind["enum"] if "enum" in kind else [kind.get("const", "")]


def _options(root: _Schema, place: _Schema) -> Iterator[_Schema]:
    """The place itself with references followed, or every member of the union it is."""
    if "$ref" in place:
        yield from _options(root, root["$defs"][place["$ref"].rpartition("/")[2]])
        return
    for union in ("anyOf", "oneOf", "allOf"):
        for member in place.get(union, ()):
            yield from _options(root, member)
    yield place
