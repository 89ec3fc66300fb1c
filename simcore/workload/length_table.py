"""Length tables: a trace's prompt and output lengths as quantiles, small enough to ship with the project."""

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, model_validator

from simcore.errors import UserError

from .columns import FloatColumn
from .section import Count, Positive, Section

__all__ = ["LEVELS", "LengthTable", "Source", "bundled_tables"]

_TAIL = (0.001, 0.0025, 0.9975, 0.999, 0.9995, 0.9999)
LEVELS = tuple(float(level) for level in np.unique(np.round(np.concatenate((np.linspace(0, 1, 201), _TAIL)), 6)))
"""The quantiles a derived table has: 201 even ones, and more in the tails, whose few long requests move the mean."""


class Source(Section):
    """Where a table comes from; all of it is shown to whoever asks."""

    repository: str
    file: str
    sha256: str
    licence: str
    requests: Count


class LengthTable(Section):
    """Inverse distribution functions of prompt and output lengths, in tokens, linear between ``levels``.

    ``rank_correlation`` is Spearman's between the two; ``copula_correlation``, the same of the Gaussian copula
    (2 sin(pi/6 * rank correlation)), is what pairs are drawn with.
    """

    schema_version: Literal[1] = 1
    name: str
    derived_from: Source
    derived_by: str
    prompt_mean_tokens: Positive
    output_mean_tokens: Positive
    rank_correlation: Annotated[float, Field(ge=-1, le=1)]
    copula_correlation: Annotated[float, Field(ge=-1, le=1)]
    levels: tuple[float, ...]
    prompt_tokens: tuple[Positive, ...]
    output_tokens: tuple[Positive, ...]

    @model_validator(mode="after")
    def _inverse_distributions(self) -> Self:
        levels = np.asarray(self.levels)
        if len(levels) < 2 or levels[0] != 0 or levels[-1] != 1 or (np.diff(levels) <= 0).any():
            raise ValueError("'levels' must rise from 0 to 1")
        for name in ("prompt_tokens", "output_tokens"):
            values = np.asarray(getattr(self, name))
            if len(values) != len(levels) or (np.diff(values) < 0).any():
                raise ValueError(f"{name!r} must have one value a level and never fall")
        return self

    @classmethod
    def load(cls, name_or_path: str, base_dir: Path) -> "LengthTable":
        """A bundled table by name, or a file's (``.json``, relative to ``base_dir``). Raises UserError."""
        if name_or_path.endswith(".json"):
            path = base_dir / Path(name_or_path).expanduser()
            try:
                return _parse(path.read_text(encoding="utf-8"), str(path))
            except OSError as error:
                raise UserError(f"length table {path}: {error.strerror or error}") from error
        if name_or_path not in bundled_tables():
            known = ", ".join(bundled_tables())
            raise UserError(f"no length table {name_or_path!r}: bundled are {known}; a file's name ends in .json")
        return _bundled(name_or_path)

    def quantile(self, side: Literal["prompt", "output"], levels: FloatColumn) -> FloatColumn:
        """The lengths (tokens, not yet whole) at ``levels`` in [0, 1]; of the same shape."""
        values = self.prompt_tokens if side == "prompt" else self.output_tokens
        return np.interp(levels, self.levels, values)


def bundled_tables() -> list[str]:
    """The names of the tables that ship with the project, sorted."""
    files = (resources.files("scenarios") / "lengths").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


@lru_cache
def _bundled(name: str) -> LengthTable:
    text = (resources.files("scenarios") / "lengths" / f"{name}.json").read_text(encoding="utf-8")
    return _parse(text, f"{name}.json")


def _parse(text: str, where: str) -> LengthTable:
    try:
        return LengthTable.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"length table {where}: {field + ': ' if field else ''}{first['msg']}") from error
