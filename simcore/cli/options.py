"""What options of several commands are made of: seeds, policies with parameters."""

import re
from pathlib import Path
from typing import Any

import click

__all__ = [
    "PolicyOption",
    "SeedsOption",
    "json_option",
    "no_out_option",
    "out_option",
    "overrides_option",
    "quiet_option",
    "seed_option",
]

seed_option = click.option("--seed", type=click.IntRange(min=0), help="The random seed. Not given: the scenario's own.")
overrides_option = click.option(
    "--set", "overrides", metavar="PATH=VALUE", multiple=True, help="Override a value of the scenario; repeatable."
)
out_option = click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Where the folder with the results is made.",
)
no_out_option = click.option("--no-out", is_flag=True, help="Write no folder.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Show no progress.")

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
        for part in filter(None, _parts(match["parameters"] or "")):
            key, separator, text = part.partition("=")
            if not separator or not key.strip():
                self.fail(f"{value!r}: {part!r} is not PARAMETER=VALUE", param, ctx)
            parameters[key.strip()] = _yaml(text)
        return match["name"], parameters


def _parts(text: str) -> list[str]:
    """Split at commas, but not within a list or a mapping."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _yaml(text: str) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError:
        return text
