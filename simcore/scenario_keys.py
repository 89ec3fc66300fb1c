"""Which keys a scenario may have at a place, to suggest the one that was meant."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

__all__ = ["nearest_key"]

_Schema = Mapping[str, Any]


def nearest_key(model: type[BaseModel], location: Sequence[int | str]) -> str | None:
    """The known key that looks most like the unknown one at ``location`` (as in pydantic's errors), if one does."""
    root = model.model_json_schema()
    places: list[_Schema] = [root]
    for step in location[:-1]:
        places = [below for place in places for below in _step(root, place, step)]
    keys = {key for place in places for option in _options(root, place) for key in option.get("properties", {})}
    close = difflib.get_close_matches(str(location[-1]), sorted(keys), 1, cutoff=0.6)
    return close[0] if close else None


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
