"""Traces of real traffic: where their files are, what is read from them, and how a bad one is reported."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from simcore.errors import UserError

from .columns import FloatColumn, IntColumn, Segments

__all__ = ["Trace", "TraceFile", "expand_variables"]


@dataclass(frozen=True, slots=True)
class Trace:
    """What a reader makes of a file; arrays of shape (requests,), in order of arrival.

    ``arrival_s`` counts from the first request and is None for a trace without times. ``skipped`` is how many entries
    were left out because they cannot be replayed, and ``skipped_why`` says what was wrong with them. ``model`` is as in
    ``Workload``, None where the trace was not asked for it.
    """

    arrival_s: FloatColumn | None
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    segments: Segments | None = None
    skipped: int = 0
    skipped_why: str = ""
    model: IntColumn | None = None


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace's file and its origin, which every complaint about it names."""

    path: Path
    origin: str

    @classmethod
    def find(cls, path: str, base_dir: Path, origin: str) -> "TraceFile":
        """``path`` with its ``${VARIABLES}`` expanded, relative to ``base_dir``, or where it begins with a variable to
        where the process runs. Raises UserError if it is no file."""
        folder = Path() if path.startswith("${") else base_dir
        file = cls(folder / Path(expand_variables(path, origin)).expanduser(), origin)
        if not file.path.is_file():
            raise UserError(f"{file.path}: no such trace file. {file.hint}")
        return file

    def text(self) -> str:
        """The whole file. Raises UserError where it cannot be read."""
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise self.error(f"cannot be read: {error}") from error

    @property
    def hint(self) -> str:
        return f"This trace comes from {self.origin}."

    def error(self, complaint: str, *, line: int | None = None, column: str | None = None) -> UserError:
        """The one error of a malformed file: where, what, and where a good one comes from."""
        where = f"{self.path}:{line}" if line is not None else str(self.path)
        return UserError(f"{where}: {f'column {column!r}: ' if column else ''}{complaint}. {self.hint}")


def expand_variables(path: str, origin: str) -> str:
    """``${NAME}`` replaced by the environment's value. Raises UserError where it is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise UserError(
                f"workload.trace.path: {path!r} needs the environment variable {name}, which is not set. Set it to the "
                f"folder that holds the traces: {name}=DIR simroute ... This trace comes from {origin}."
            )
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", value, path)
