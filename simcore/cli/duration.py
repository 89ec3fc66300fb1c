"""``--budget 5m``: a length of time as an option."""

import re
from typing import Any

import click

__all__ = ["DurationOption"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class DurationOption(click.ParamType[float]):
    """``90``, ``90s``, ``5m``, ``1.5h``: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See ``click.ParamType``."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(value))
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r}: give a time as 90s, 5m or 1h", param, ctx)
        return float(match[1]) * _UNITS[match[2] or "s"]
