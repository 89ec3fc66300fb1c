"""What a workload is to the engine: columns over requests, built once and then only read.

Columns, not objects: a million requests are a handful of arrays, and the engine makes an object only for the requests
that are under way.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NONE", "FloatColumn", "IntColumn", "Segments", "Workload", "answer_segment", "prompt_segment"]

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]

NONE = -1
"""Stands for "no such id" in the integer columns."""


def prompt_segment(request_id: int) -> int:
    """The id of the part of a prompt that no other request has."""
    return 2 * request_id


def answer_segment(request_id: int) -> int:
    """The id of a request's generated tokens; a later turn of the session names it in its prompt."""
    return 2 * request_id + 1


@dataclass(frozen=True, slots=True)
class Segments:
    """The prompts' content as runs of tokens that are equal exactly when their ids are (compressed sparse rows).

    Request ``i``'s prompt is the runs ``offsets[i]:offsets[i+1]`` of ``ids`` and ``tokens``, in order; their tokens add
    up to its ``prompt_tokens``. Shared content (a system prompt, a trace's hash block) has a negative id; content of
    one request has ``prompt_segment(i)``, its answer ``answer_segment(i)``. A shorter run with the same id is a prefix
    of a longer one.
    """

    offsets: IntColumn
    ids: IntColumn
    tokens: IntColumn

    @classmethod
    def from_rows(cls, rows: Iterable[Iterable[tuple[int, int]]]) -> "Segments":
        """Build from one list of (id, tokens) per request; runs of no tokens are dropped."""
        offsets, ids, tokens = [0], [], []
        for row in rows:
            for segment, count in row:
                if count > 0:
                    ids.append(segment)
                    tokens.append(count)
            offsets.append(len(ids))
        return cls(*(np.asarray(column, dtype=np.int64) for column in (offsets, ids, tokens)))


@dataclass(frozen=True, slots=True)
class Workload:
    """``n`` requests; a request's id is its index. Arrays are of shape (n,).

    arrival_s              when the client wants to send it, non-decreasing over first turns; NaN for a later turn of a
                           session, which is sent ``think_s`` after the turn before it was answered
    prompt_tokens          >= 1
    output_tokens          what the model will really generate, >= 1; no policy ever sees it
    max_new_tokens         the sampling limit, >= output_tokens; equal where the answer ends by length
    expected_output_tokens what a policy may see of the output length; NONE where nothing is expected
    ignore_eos             the request generates to its limit whatever the model says (needs output == max_new)
    segments               the prompts' content, or None when no two requests share anything
    session_id, next_turn  NONE outside sessions; next_turn is the index of the turn that follows
    think_s                0 for first turns
    priority               0 unless the scenario says otherwise; higher is more urgent
    max_concurrency        the client's own limit on requests in flight, or None (not a server's max_running_requests)
    model, models          what each request asks for, as its place in ``models``; None and () where requests name none
    """

    arrival_s: FloatColumn
    prompt_tokens: IntColumn
    output_tokens: IntColumn
    max_new_tokens: IntColumn
    expected_output_tokens: IntColumn
    session_id: IntColumn
    next_turn: IntColumn
    think_s: FloatColumn
    priority: IntColumn
    ignore_eos: bool
    segments: Segments | None = None
    max_concurrency: int | None = None
    model: IntColumn | None = None
    models: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @property
    def sent_at_once(self) -> int:
        """How many the clients send together as the first of all."""
        together = int((self.arrival_s == np.nanmin(self.arrival_s)).sum())
        return together if self.max_concurrency is None else min(together, self.max_concurrency)
