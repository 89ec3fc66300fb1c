"""Shared prefixes: groups of requests, or of conversations, that begin with the same system prompt."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .columns import IntColumn
from .lengths import LengthSpec, draw_lengths
from .section import Count, NonNegative, Section

__all__ = [
    "PrefixChoiceSpec",
    "PrefixSpec",
    "RandomChoice",
    "RoundRobinChoice",
    "ShuffledChoice",
    "ZipfChoice",
    "draw_prefixes",
    "prefix_segments",
]


class ShuffledChoice(Section):
    """Every group equally often (give or take one), in random order: sglang.bench_serving's generated-shared-prefix."""

    kind: Literal["shuffled"] = "shuffled"


class RoundRobinChoice(Section):
    """Group after group in turn: the order in which a prefix comes back as late as it can."""

    kind: Literal["round_robin"] = "round_robin"


class RandomChoice(Section):
    """Each request's group is drawn by itself, all groups equally likely."""

    kind: Literal["random"] = "random"


class ZipfChoice(Section):
    """Group g = 1, 2, ... is drawn with a probability proportional to ``g ** -exponent``."""

    kind: Literal["zipf"] = "zipf"
    exponent: NonNegative = 1.0


PrefixChoiceSpec = Annotated[
    ShuffledChoice | RoundRobinChoice | RandomChoice | ZipfChoice,
    Field(discriminator="kind"),
]


class PrefixSpec(Section):
    """``groups`` system prompts, each of a length drawn once; a prompt is its group's prefix and its own question.

    The question is ``lengths.prompt``. In generated-shared-prefix's defaults: 64 groups, 1,024 requests, a fixed system
    prompt of 2,048 tokens, questions of 128 and answers of 256.
    """

    groups: Count
    system_prompt: LengthSpec
    choice: PrefixChoiceSpec = ShuffledChoice()


def prefix_segments(group: IntColumn) -> IntColumn:
    """The ids of groups' prefixes in the prompts' segments."""
    return -(group + 1)


def draw_prefixes(spec: PrefixSpec, rng: np.random.Generator, n: int, *, base_dir: Path) -> tuple[IntColumn, IntColumn]:
    """Of ``n`` requests (or conversations) the group, in [0, groups), and its prefix's length in tokens."""
    for_lengths, for_choice = rng.spawn(2)
    lengths = draw_lengths(spec.system_prompt, for_lengths, spec.groups, side="prompt", base_dir=base_dir)
    group = _choose(spec, for_choice, n)
    return group, lengths[group]


def _choose(spec: PrefixSpec, rng: np.random.Generator, n: int) -> IntColumn:
    match spec.choice:
        case ShuffledChoice():
            return rng.permutation(np.arange(n, dtype=np.int64) % spec.groups)
        case RoundRobinChoice():
            return np.arange(n, dtype=np.int64) % spec.groups
        case RandomChoice():
            return rng.integers(spec.groups, size=n)
        case ZipfChoice():
            weights = np.arange(1, spec.groups + 1, dtype=np.float64) ** -spec.choice.exponent
            return rng.choice(spec.groups, size=n, p=weights / weights.sum())
