"""Reading tables of measurements: one message where a file is missing or is not what it should be."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from simcore.errors import UserError

__all__ = ["read_table", "sha256"]


def read_table(path: Path, text: Sequence[str], numbers: Sequence[str]) -> pd.DataFrame:
    """The named columns of a CSV file with a header, text as str and numbers as float64. Raises UserError."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a CSV table: {error}") from error
    missing = [name for name in (*text, *numbers) if name not in table.columns]
    if missing:
        raise UserError(f"{path}: no column {missing[0]!r}; it has {', '.join(table.columns)}")
    table = table[[*text, *numbers]]
    for name in numbers:
        values = pd.to_numeric(table[name], errors="coerce").astype("float64")
        bad = values.isna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise UserError(f"{path}, line {row + 2}: {name} is {table[name].iloc[row]!r}, not a number")
        table = table.assign(**{name: values})
    return table


def sha256(path: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
