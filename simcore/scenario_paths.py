"""The files that a scenario names, relative to its own; what is written elsewhere names them from the root."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["policy_from_here", "with_absolute_paths"]


def policy_from_here(name: str, base_dir: Path) -> str:
    """A policy's name; that of a file relative to ``base_dir`` becomes relative to where the process runs."""
    return str(base_dir / name) if ".py:" in name else name


def with_absolute_paths(document: Mapping[str, Any], base_dir: Path) -> dict[str, Any]:
    """A dumped scenario with its profiles, tables and traces named from the root, and the files of its policies and
    its controller, which are relative to where the process runs. A trace's path that begins with a variable stays: it
    is good anywhere."""
    policies = [_named_from_root(policy) for policy in document["policies"]]
    controller = document["controller"] and _named_from_root(document["controller"])
    absolute = _absolute(document, base_dir)
    assert isinstance(absolute, dict)
    return {**absolute, "policies": policies, "controller": controller}


def _named_from_root(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec, "name": str(Path(spec["name"]).absolute()) if ".py:" in spec["name"] else spec["name"]}


def _absolute(value: Any, base_dir: Path, key: str = "") -> Any:
    match value:
        case dict():
            return {name: _absolute(below, base_dir, name) for name, below in value.items()}
        case list():
            return [_absolute(below, base_dir, key) for below in value]
        case str() if _is_path(key, value):
            return str((base_dir / Path(value).expanduser()).absolute())
        case _:
            return value


def _is_path(key: str, value: str) -> bool:
    """A trace's path, or a profile or table that is a file rather than a bundled one's name."""
    return not value.startswith("${") if key == "path" else key in ("profile", "table") and value.endswith(".json")
