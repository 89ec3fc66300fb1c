"""What options of several commands are made of: seeds, policies with parameters."""

import re
from typing import Any

import click

__all__ = ["PolicyOption", "SeedsOption"]

_POLICY = re.compile(r"(?P<name>(?:.*\.py:)?[^:]+)(?::(?P<parameters>.*))?")


class SeedsOption(click.ParamType[tuple[int, ...]]):
    """``0..4`` (both included), ``1,5,7``, or both."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """See ``click.ParamType``."""
        if isinstance(value, tuple):
            return value
        seeds: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part)
            if match is None:
                self.fail(f"{value!r}: give seeds as 0..4 or 1,5,7", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"{value!r}: {first}..{last} is empty", param, ctx)
            seeds += range(first, last + 1)
        if len(set(seeds)) != len(seeds):
            self.fail(f"{value!r}: a seed is given twice", param, ctx)
        return tuple(seeds)


class PolicyOption(click.ParamType[tuple[str, dict[str, object]]]):
    """``name``, ``file.py:Class``, and either with parameters: ``name:alpha=0.5,beta=2``. Values are YAML."""

    name = "policy"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, object]]:
        """The policy's name and its parameters."""
        if isinstance(value, tuple):
            return value
        match = _POLICY.fullmatch(value)
        if match is None:
            self.fail(f"{value!r}: give it as NAME, FILE.py:CLASS or NAME:PARAMETER=VALUE,...", param, ctx)
        parameters: dict[str, object] = {}
        for part in filter(None, (match["parameters"] or "").split(",")):
            key, separator, text = part.partition("=")
            if not separator or not key.strip():
                self.fail(f"{value!r}: {part!r} is not PARAMETER=VALUE", param, ctx)
            parameters[key.strip()] = _yaml(text)
        return match["name"], parameters


def _yaml(text: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text
