"""Readers of traces in comma-separated values: Azure 2023 and 2024, BurstGPT."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from .columns import IntColumn
from .models import named_models
from .trace_file import Trace, TraceFile

__all__ = ["AZURE", "BURSTGPT", "CsvFormat", "read_csv"]

Text: TypeAlias = "pd.Series[str]"
Mask: TypeAlias = npt.NDArray[np.bool_]

MODEL = "Model"
"""BurstGPT's column of what was asked for: ChatGPT or GPT-4."""

_CHUNK = 100_000
"""Rows read at a time: a week of Azure's traffic is tens of millions of them, and their text is not kept."""


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """The three columns that count, and how times are read: whole nanoseconds, and which of them are times at all."""

    time: str
    prompt: str
    output: str
    instants: Callable[[Text], tuple[IntColumn, Mask]]
    time_example: str


def _clock_times(text: Text) -> tuple[IntColumn, Mask]:
    # Both years: a blank or a T between date and time, up to nine decimals or none, with an offset from UTC or without.
    times = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    return np.asarray(times.dt.as_unit("ns").astype("int64"), dtype=np.int64), np.asarray(times.notna(), dtype=np.bool_)


def _plain_seconds(text: Text) -> tuple[IntColumn, Mask]:
    seconds = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    is_time = np.isfinite(seconds)
    return np.rint(np.where(is_time, seconds, 0) * 1e9).astype(np.int64), is_time


AZURE = CsvFormat("TIMESTAMP", "ContextTokens", "GeneratedTokens", _clock_times, "2023-11-16 18:15:46.6805900")
BURSTGPT = CsvFormat("Timestamp", "Request tokens", "Response tokens", _plain_seconds, "45")


def read_csv(
    file: TraceFile, form: CsvFormat, *, limit: int | None, rate_scale: float, models: dict[str, str] | None = None
) -> Trace:
    """The file's first ``limit`` requests with a prompt and an answer, in order of time; with ``models``, what they ask
    for by the column ``MODEL``. Raises UserError."""
    blocks: list[tuple[IntColumn, ...]] = []
    kept = skipped = 0
    for chunk in _chunks(file, form):
        time_ns, is_time = form.instants(chunk[form.time])
        _refuse(file, chunk, form.time, ~is_time, f"is not a time (such as {form.time_example})")
        prompt, output = (_token_counts(file, chunk, name) for name in (form.prompt, form.output))
        model = np.zeros(len(chunk), dtype=np.int64) if models is None else _models(file, chunk, models)
        replayable = np.flatnonzero((prompt > 0) & (output > 0))
        if limit is not None and kept + len(replayable) >= limit:
            replayable = replayable[: limit - kept]
            chunk = chunk.iloc[: replayable[-1] + 1]
        blocks.append(tuple(column[replayable] for column in (time_ns, prompt, output, model)))
        kept += len(replayable)
        skipped += len(chunk) - len(replayable)
        if kept == limit:
            break
    time_ns, prompt, output, model = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.argsort(time_ns, kind="stable")
    return Trace(
        arrival_s=(time_ns[order] - time_ns[order[:1]]) / 1e9 / rate_scale,
        prompt_tokens=prompt[order],
        output_tokens=output[order],
        skipped=skipped,
        skipped_why=f"{form.prompt!r} or {form.output!r} is 0 (failed, or nothing was generated)",
        model=None if models is None else model[order],
    )


def _chunks(file: TraceFile, form: CsvFormat) -> Iterator[pd.DataFrame]:
    """The rows as text, indexed by line number, without empty lines."""
    try:
        with pd.read_csv(
            file.path,
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            encoding="utf-8-sig",
            chunksize=_CHUNK,
        ) as chunks:
            for chunk in chunks:
                _check_columns(file, form, chunk)
                chunk.index += 2  # the header is line 1
                yield chunk[(chunk != "").any(axis=1)]
    except pd.errors.EmptyDataError:
        raise file.error("the file is empty", line=1) from None
    except pd.errors.ParserError as error:
        line = re.search(r"line (\d+)", str(error))
        complaint = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise file.error(complaint, line=int(line[1]) if line else None) from error
    except (OSError, UnicodeDecodeError) as error:
        raise file.error(f"cannot be read: {error}") from error


def _check_columns(file: TraceFile, form: CsvFormat, chunk: pd.DataFrame) -> None:
    for name in (form.time, form.prompt, form.output):
        if name not in chunk.columns:
            raise file.error(f"missing; the header has {', '.join(map(str, chunk.columns))}", line=1, column=name)
    # Where the first row has more fields than the header, pandas takes the surplus for row labels.
    if not isinstance(chunk.index, pd.RangeIndex):
        raise file.error(f"more fields than the {len(chunk.columns)} of the header", line=2)


def _models(file: TraceFile, chunk: pd.DataFrame, models: dict[str, str]) -> IntColumn:
    if MODEL not in chunk.columns:
        raise file.error(f"missing; the header has {', '.join(map(str, chunk.columns))}", line=1, column=MODEL)
    column, unknown = named_models(chunk[MODEL], models)
    _refuse(file, chunk, MODEL, unknown.to_numpy("bool"), f"is none of trace.models ({', '.join(models)})")
    return column


def _token_counts(file: TraceFile, chunk: pd.DataFrame, column: str) -> IntColumn:
    counts = np.asarray(pd.to_numeric(chunk[column], errors="coerce"), dtype=np.float64)
    is_count = np.isfinite(counts) & (counts >= 0) & (counts == np.floor(counts))
    _refuse(file, chunk, column, ~is_count, "is not a whole number of tokens")
    return counts.astype(np.int64)


def _refuse(file: TraceFile, chunk: pd.DataFrame, column: str, wrong: Mask, complaint: str) -> None:
    """Raise UserError for the first row that is ``wrong``, if any is."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise file.error(f"{chunk[column].iloc[row]!r} {complaint}", line=int(chunk.index[row]), column=column)
