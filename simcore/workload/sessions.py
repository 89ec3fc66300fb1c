"""Multi-turn sessions: conversations whose every prompt repeats all that was said before.

Turn k's prompt is the shared prefix (if any), every earlier message and answer, and a new message. It is sent
``think_s`` after the answer before it.
"""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from simcore.errors import UserError

from .columns import FloatColumn, IntColumn
from .lengths import Lengths, LengthSpec, draw_lengths
from .section import Count, NonNegative, Positive, Section

__all__ = [
    "Conversations",
    "ExponentialTime",
    "FixedTime",
    "FixedTurns",
    "GeometricTurns",
    "LognormalTime",
    "SessionSpec",
    "Sessions",
    "TimeSpec",
    "TurnsSpec",
    "UniformTurns",
    "draw_times",
]


class FixedTurns(Section):
    """Every session has ``turns``."""

    kind: Literal["fixed"] = "fixed"
    turns: Count


class UniformTurns(Section):
    """A whole number in [min_turns, max_turns]."""

    kind: Literal["uniform"] = "uniform"
    min_turns: Count = 1
    max_turns: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_turns > self.max_turns:
            raise ValueError("'min_turns' is above 'max_turns'")
        return self


class GeometricTurns(Section):
    """After each turn the session goes on with the same probability; ``mean_turns`` on average."""

    kind: Literal["geometric"] = "geometric"
    mean_turns: Annotated[float, Field(ge=1, allow_inf_nan=False)]


TurnsSpec = Annotated[FixedTurns | UniformTurns | GeometricTurns, Field(discriminator="kind")]


class FixedTime(Section):
    """Always ``time_s``."""

    kind: Literal["fixed"] = "fixed"
    time_s: NonNegative


class ExponentialTime(Section):
    """Exponential of mean ``mean_s``."""

    kind: Literal["exponential"] = "exponential"
    mean_s: Positive


class LognormalTime(Section):
    """Lognormal of mean ``mean_s`` and coefficient of variation ``cv``."""

    kind: Literal["lognormal"] = "lognormal"
    mean_s: Positive
    cv: Positive


TimeSpec = Annotated[FixedTime | ExponentialTime | LognormalTime, Field(discriminator="kind")]


class SessionSpec(Section):
    """Sessions of several turns; the workload's arrivals are those of first turns.

    ``message`` is the new message of each later turn (the first is ``lengths.prompt``). A session ends early before a
    turn whose whole prompt would be longer than ``max_prompt_tokens``. With ``requests`` all turns count, and the last
    session is cut short where the count is full; with ``duration_s`` sessions that start in time run to their end.
    """

    turns: TurnsSpec
    think_s: TimeSpec
    message: LengthSpec
    max_prompt_tokens: Count | None = None


@dataclass(frozen=True, slots=True)
class Conversations:
    """All turns of all sessions, session after session; arrays of shape (requests,).

    turn           0 for the first of a session
    session        which session, from 0
    own_tokens     what the turn adds to the prompt: the question, or the new message
    output_tokens  the answer
    """

    turn: IntColumn
    session: IntColumn
    own_tokens: IntColumn
    output_tokens: IntColumn

    def prompt_tokens(self, prefix_tokens: IntColumn) -> IntColumn:
        """Each turn's whole prompt, given the shared prefix of each session, shape (sessions,)."""
        before = np.cumsum(self.own_tokens + self.output_tokens) - self.own_tokens - self.output_tokens
        said_earlier = before - before[self.turn == 0][self.session]
        prompt: IntColumn = prefix_tokens[self.session] + said_earlier + self.own_tokens
        return prompt


class Sessions:
    """Draws whole sessions block after block, each component from its own stream."""

    def __init__(
        self,
        spec: SessionSpec,
        lengths: Lengths,
        *,
        turns: np.random.Generator,
        message: np.random.Generator,
        base_dir: Path,
    ):
        self._spec = spec
        self._lengths = lengths
        self._turns = turns
        self._message = message
        self._base_dir = base_dir

    def draw(self, prefix_tokens: IntColumn, requests: int | None) -> Conversations:
        """As many sessions as fill ``requests``, or one for every entry of ``prefix_tokens`` (their shared prefixes).

        ``prefix_tokens`` has at least as many entries as sessions can be needed. Raises UserError where a first prompt
        is already longer than a session's may be.
        """
        blocks: list[Conversations] = []
        sessions = rows = 0
        while sessions < len(prefix_tokens) and (requests is None or rows < requests):
            size = len(prefix_tokens) - sessions
            if requests is not None:
                # What sessions yield is known once they are drawn; the rest is asked for as if all yielded their mean.
                size = min(size, int(np.ceil((requests - rows) / _mean_turns(self._spec.turns))))
            block = _cut_long(self._spec, self._draw_block(size), prefix_tokens[sessions : sessions + size])
            blocks.append(replace(block, session=block.session + sessions))
            sessions += size
            rows += len(block.turn)
        columns = (np.concatenate([getattr(block, field.name) for block in blocks]) for field in fields(Conversations))
        return Conversations(*(column[:requests] for column in columns))

    def _draw_block(self, sessions: int) -> Conversations:
        turns = _draw_turns(self._spec.turns, self._turns, sessions)
        rows = int(turns.sum())
        session = np.repeat(np.arange(sessions, dtype=np.int64), turns)
        turn = np.arange(rows, dtype=np.int64) - np.repeat(np.cumsum(turns) - turns, turns)
        question, output = self._lengths.draw(rows)
        message = draw_lengths(self._spec.message, self._message, rows, side="prompt", base_dir=self._base_dir)
        return Conversations(turn, session, np.where(turn == 0, question, message), output)


def _cut_long(spec: SessionSpec, block: Conversations, prefix_tokens: IntColumn) -> Conversations:
    """Without the turns whose prompts are too long: a prompt only grows, so those are each session's last."""
    if spec.max_prompt_tokens is None:
        return block
    prompt = block.prompt_tokens(prefix_tokens)
    fits = prompt <= spec.max_prompt_tokens
    if not fits[block.turn == 0].all():
        longest = int(prompt[block.turn == 0].max())
        raise UserError(
            f"workload.sessions.max_prompt_tokens: a session's first prompt has {longest} tokens, more than the "
            f"{spec.max_prompt_tokens} allowed; bound workload.lengths (max_tokens) or raise the limit"
        )
    return Conversations(*(getattr(block, field.name)[fits] for field in fields(Conversations)))


def _mean_turns(spec: TurnsSpec) -> float:
    match spec:
        case FixedTurns():
            return spec.turns
        case UniformTurns():
            return (spec.min_turns + spec.max_turns) / 2
        case GeometricTurns():
            return spec.mean_turns


def _draw_turns(spec: TurnsSpec, rng: np.random.Generator, n: int) -> IntColumn:
    match spec:
        case FixedTurns():
            return np.full(n, spec.turns, dtype=np.int64)
        case UniformTurns():
            return rng.integers(spec.min_turns, spec.max_turns, size=n, endpoint=True)
        case GeometricTurns():
            return rng.geometric(1 / spec.mean_turns, n)


def draw_times(spec: TimeSpec, rng: np.random.Generator, n: int) -> FloatColumn:
    """``n`` times in seconds."""
    match spec:
        case FixedTime():
            return np.full(n, spec.time_s)
        case ExponentialTime():
            return rng.exponential(spec.mean_s, n)
        case LognormalTime():
            variance = np.log1p(spec.cv**2)
            return rng.lognormal(np.log(spec.mean_s) - variance / 2, np.sqrt(variance), n)
