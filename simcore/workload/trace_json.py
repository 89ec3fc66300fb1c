"""Readers of traces in JSON: Mooncake (JSON lines with hash ids) and ShareGPT (conversations)."""

import json
from typing import Any, NamedTuple

import numpy as np

from .columns import IntColumn, Segments
from .trace_file import Trace, TraceFile

__all__ = ["read_mooncake", "read_sharegpt"]

_SHORTEST = 2
"""sglang.bench_serving leaves out ShareGPT prompts and answers with fewer tokens than this."""

_HASHES = 2**63 - 1
"""Hash ids are below this: -(h + 1) must fit the segments' 64 bits."""


class _Call(NamedTuple):
    time_s: float
    prompt_tokens: int
    output_tokens: int
    hash_ids: list[int]


def read_mooncake(file: TraceFile, block_tokens: int, *, limit: int | None, rate_scale: float) -> Trace:
    """The file's first ``limit`` requests with a prompt and an answer, in order of time. Raises UserError.

    Hash id h is the shared segment -(h + 1).
    """
    kept: list[_Call] = []
    skipped = 0
    for number, line in enumerate(file.text().split("\n"), 1):
        if line.strip():
            call = _mooncake_call(file, number, line, block_tokens)
            if call.prompt_tokens > 0 and call.output_tokens > 0:
                kept.append(call)
            else:
                skipped += 1
        if len(kept) == limit:
            break
    kept.sort(key=lambda call: call.time_s)
    time_s = np.array([call.time_s for call in kept])
    prompt = np.array([call.prompt_tokens for call in kept], dtype=np.int64)
    return Trace(
        arrival_s=(time_s - time_s[:1]) / rate_scale,
        prompt_tokens=prompt,
        output_tokens=np.array([call.output_tokens for call in kept], dtype=np.int64),
        segments=_block_segments(kept, prompt, block_tokens),
        skipped=skipped,
        skipped_why="'input_length' or 'output_length' is 0",
    )


def _block_segments(calls: list[_Call], prompt: IntColumn, block_tokens: int) -> Segments:
    offsets = np.concatenate(([0], np.cumsum([len(call.hash_ids) for call in calls], dtype=np.int64)))
    hashes = np.fromiter((h for call in calls for h in call.hash_ids), dtype=np.int64, count=int(offsets[-1]))
    tokens = np.full(len(hashes), block_tokens, dtype=np.int64)
    tokens[offsets[1:] - 1] = prompt - (np.diff(offsets) - 1) * block_tokens
    return Segments(offsets, -(hashes + 1), tokens)


def _mooncake_call(file: TraceFile, number: int, line: str, block_tokens: int) -> _Call:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise file.error(f"not JSON: {error.msg} at character {error.colno}", line=number) from error
    if not isinstance(record, dict):
        raise file.error("not a JSON object", line=number)
    for column in ("timestamp", "input_length", "output_length", "hash_ids"):
        if column not in record:
            raise file.error("missing", line=number, column=column)
    time = record["timestamp"]
    if isinstance(time, bool) or not isinstance(time, int | float) or not np.isfinite(time):
        raise file.error(f"{time!r} is not a time in milliseconds", line=number, column="timestamp")
    prompt = _token_count(file, number, "input_length", record["input_length"])
    output = _token_count(file, number, "output_length", record["output_length"])
    hashes = record["hash_ids"]
    if not isinstance(hashes, list) or not all(type(h) is int and 0 <= h < _HASHES for h in hashes):
        raise file.error("is not a list of whole numbers from 0 to 2**63 - 2", line=number, column="hash_ids")
    if len(hashes) != -(-prompt // block_tokens):
        complaint = f"{len(hashes)} blocks of {block_tokens} tokens do not make a prompt of {prompt}"
        raise file.error(complaint, line=number, column="hash_ids")
    return _Call(time / 1000, prompt, output, hashes)


def _token_count(file: TraceFile, number: int, column: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise file.error(f"{value!r} is not a whole number of tokens", line=number, column=column)
    return value


def read_sharegpt(
    file: TraceFile, chars_per_token: float, *, limit: int | None, order: np.random.Generator | None
) -> Trace:
    """First turns and their answers, in the file's order or in one drawn from ``order``. Raises UserError."""
    try:
        entries = json.loads(file.text())
    except json.JSONDecodeError as error:
        raise file.error(f"not JSON: {error.msg} at character {error.colno}", line=error.lineno) from error
    if not isinstance(entries, list):
        raise file.error("not a JSON array of conversations")
    pairs = [_first_two_turns(file, number, entry, chars_per_token) for number, entry in enumerate(entries)]
    lengths = np.array([pair for pair in pairs if min(pair) >= _SHORTEST], dtype=np.int64).reshape(-1, 2)
    if order is not None:
        lengths = order.permutation(lengths)
    kept = lengths[:limit]
    return Trace(
        arrival_s=None,
        prompt_tokens=kept[:, 0].copy(),
        output_tokens=kept[:, 1].copy(),
        skipped=len(pairs) - len(lengths),
        skipped_why=f"fewer than two turns, or fewer than {_SHORTEST} tokens in one",
    )


def _first_two_turns(file: TraceFile, number: int, entry: Any, chars_per_token: float) -> tuple[int, int]:
    """The tokens of prompt and answer; 0 for a turn that is not there."""
    turns = entry.get("conversations", entry.get("conversation")) if isinstance(entry, dict) else None
    if not isinstance(turns, list):
        raise file.error(f"entry {number} has no list of turns", column="conversations")
    prompt, answer, *_ = (
        *(_turn_tokens(file, f"entry {number}, turn {k}", turn, chars_per_token) for k, turn in enumerate(turns[:2])),
        *(0, 0),
    )
    return prompt, answer


def _turn_tokens(file: TraceFile, where: str, turn: Any, chars_per_token: float) -> int:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise file.error(f"{where} has no text", column="value")
    if "tokens" not in turn:
        return int(np.ceil(len(turn["value"]) / chars_per_token))
    count = turn["tokens"]
    if type(count) is not int or count < 0:
        raise file.error(f"{where}: {count!r} is not a whole number of tokens", column="tokens")
    return count
