"""Which points are measured, chosen from the server's own limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np

from .server_facts import ServerFacts

__all__ = ["LOAD_REPORT", "DecodePoint", "Plan", "Point", "PrefillPoint", "ReportPoint", "RidePoint", "make_plan"]

LOAD_REPORT: Final = "load report"
DECODE_TOKENS: Final = 33
"""Tokens that each request of a decode run generates at least: 31 full steps. A machine drifts more between two visits
of a point than the mean of so few scatters, so short visits and more rounds of them tell more in the same time."""

RIDE_TOKENS: Final = 49
"""Where prompts come meanwhile: of steps without one there have to be enough too."""

_LONG_ANSWER = 129  # tokens: as many as answers have in use
_LONG_ANSWER_S = 2.0  # that a small batch may take for one
_SHORT_PROMPT = 64
_LONGEST_CONTEXT = 8192
_POOL_SHARE = 0.4  # of the KV pool that long prompts may take: more makes prefilling them the most of the work
_FILLED_SHARE = 0.8  # of it that a batch of short prompts may take
_PREFILLS = (1, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
_CACHED_NEW = (32, 256, 1024)
_RIDES = (32, 256, 1024)


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A prompt of ``fewest_tokens`` to ``new_tokens`` after ``cached_tokens`` that the radix cache holds."""

    new_tokens: int
    cached_tokens: int
    fewest_tokens: int

    @property
    def name(self) -> str:
        return f"prefill {self.new_tokens} after {self.cached_tokens}"

    @property
    def work_tokens(self) -> int:
        return self.new_tokens + 2 * self.cached_tokens

    @property
    def steps(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class DecodePoint:
    """``batch`` requests with prompts of ``prompt_tokens`` on average, decoding ``steps`` tokens together."""

    batch: int
    prompt_tokens: int
    longest_prompt: int
    steps: int = DECODE_TOKENS

    @property
    def name(self) -> str:
        return f"decode batch {self.batch} at {self.prompt_tokens}"

    @property
    def work_tokens(self) -> int:
        return self.batch * self.prompt_tokens

    def prompts(self) -> list[int]:
        """The prompts' lengths, unequal as in use: a kernel may take longer for a batch of long and short contexts than
        for one of their mean. They are the quantiles of an exponential distribution, none above ``longest_prompt``."""
        quantiles = -np.log1p(-(np.arange(self.batch) + 0.5) / self.batch)
        tokens = np.round(self.prompt_tokens * quantiles / quantiles.mean())
        return [int(length) for length in np.clip(tokens, 1, self.longest_prompt)]


@dataclass(frozen=True, slots=True)
class RidePoint:
    """A prompt of ``fewest_tokens`` to ``new_tokens`` that comes while ``batch`` requests decode: a mixed step, or a
    prefill step between decode steps."""

    batch: int
    prompt_tokens: int
    new_tokens: int
    fewest_tokens: int

    @property
    def name(self) -> str:
        return f"prefill {self.new_tokens} among {self.batch} at {self.prompt_tokens}"

    @property
    def work_tokens(self) -> int:
        return self.batch * self.prompt_tokens + self.new_tokens

    @property
    def steps(self) -> int:
        return RIDE_TOKENS


@dataclass(frozen=True, slots=True)
class ReportPoint:
    """The load report while one request decodes and others come and go, each for a number of steps between two: above
    15, after which SGLang writes a report by default, and up to twice that, so that they end at any moment between two
    reports. ``step_s``: about as long as a step takes."""

    step_s: float
    name: str = LOAD_REPORT
    work_tokens: int = _SHORT_PROMPT
    steps: int = 4 * DECODE_TOKENS
    guest_steps: tuple[int, int] = (16, 30)


Point = PrefillPoint | DecodePoint | RidePoint | ReportPoint


@dataclass(frozen=True, slots=True)
class Plan:
    """The points in the order of a first pass: what is cheap and needed most comes first. ``step_s``: about as long as
    a decode step of a small batch takes."""

    points: tuple[Point, ...]
    step_s: float

    def describe(self) -> str:
        """One line."""
        counts = [
            f"{sum(isinstance(point, kind) for point in self.points)} {name}"
            for kind, name in ((PrefillPoint, "prefill"), (DecodePoint, "decode"), (RidePoint, "mixed"))
        ]
        return f"{', '.join(counts)} points and the load report"


def make_plan(facts: ServerFacts, step_s: float) -> Plan:
    """Prefill lengths up to a step's limit, batches up to the running limit, contexts up to a share of the pool."""
    settings = facts.settings
    longest_step = min(
        settings.chunked_prefill_size or settings.max_prefill_tokens,
        settings.max_prefill_tokens,
        facts.max_prompt_tokens,
    )
    *shorter, longest = _up_to(_PREFILLS, longest_step - 1)
    # A server cuts prompts into chunks of the longest: these come in that very length.
    plain = [*(PrefillPoint(tokens, 0, _fewest(tokens)) for tokens in shorter), PrefillPoint(longest, 0, longest)]
    cached = _cached_prefills(facts, longest_step) if settings.radix_cache else []
    decodes = _decodes(facts, step_s)
    shorts = [next(points) for _, points in groupby(decodes, key=lambda point: point.batch)]
    longer = sorted((point for point in decodes if point not in shorts), key=lambda point: point.work_tokens)
    # A slope needs a second context; with those, a short budget is not for nothing.
    second, rest = longer[: len(shorts)], longer[len(shorts) :]
    needed: list[Point] = [*plain, *shorts, *second, ReportPoint(step_s)]
    return Plan((*needed, *_spread(_rides(facts, longest_step), cached, rest)), step_s)


def _spread(*kinds: Sequence[Point]) -> list[Point]:
    """Each kind evenly over all that follows: what a machine does for half a minute must not be in all of one kind."""
    placed = [((index + 0.5) / len(kind), point) for kind in kinds for index, point in enumerate(kind)]
    return [point for _, point in sorted(placed, key=lambda pair: pair[0])]


def _fewest(tokens: int) -> int:
    """Prompts have lengths of their own in use: kernels favour round ones, and are compiled or tuned for a length when
    they first meet it. So a point is measured at any of those a little below it too."""
    return tokens - tokens // 8


def _up_to(values: Sequence[int], largest: int) -> list[int]:
    """The values below ``largest``, and ``largest`` itself."""
    return [*(value for value in values if value < 0.9 * largest), largest]


def _cached_prefills(facts: ServerFacts, longest_step: int) -> list[PrefillPoint]:
    depth = min(facts.max_prompt_tokens, facts.kv_tokens_capacity // 2, 2 * _LONGEST_CONTEXT)
    # A prefix has to be prefilled first, in one step of its own where it is to be cheap.
    depths = sorted({depth // 8, depth // 4, depth // 2})
    page = facts.settings.page_size
    return [
        PrefillPoint(new, cached // page * page, _fewest(new))
        for cached in depths
        for new in _CACHED_NEW
        if cached + new < facts.max_prompt_tokens and new < longest_step
    ]


def _batches(facts: ServerFacts) -> list[int]:
    """Powers of two up to the running limit, and the limit, as far as the pool holds them with any prompt. Three as
    well: on some machines an odd row costs more than an even one."""
    limit = _most_at_once(facts, 1 + DECODE_TOKENS)
    batches = [batch for batch in (1, 2, 3, *(2**power for power in range(2, limit.bit_length()))) if batch < limit]
    # What is close to the limit tells little beside it.
    return [*(batch for batch in batches if batch <= 4 or batch < 0.8 * limit), limit]


def _most_at_once(facts: ServerFacts, tokens: int) -> int:
    """Requests of so many tokens, prompt and answer, that can decode together, by the running limit and by the pool."""
    in_pool = int(_FILLED_SHARE * facts.kv_tokens_capacity / tokens)
    return max(min(facts.settings.max_running_requests, in_pool), 1)


def _decodes(facts: ServerFacts, step_s: float) -> list[DecodePoint]:
    points = []
    for batch in _batches(facts):
        longest = min(
            facts.context_length // 2,
            _LONGEST_CONTEXT,
            int(_POOL_SHARE * facts.kv_tokens_capacity / batch) - DECODE_TOKENS,
        )
        # A pool may be too small for the batch with short prompts: then with shorter ones.
        short = min(_SHORT_PROMPT, max(int(_FILLED_SHARE * facts.kv_tokens_capacity / batch) - DECODE_TOKENS, 1))
        contexts = {short}
        if longest >= 4 * short:
            contexts |= {longest, int((short * longest) ** 0.5)}
        elif longest > short:
            contexts.add(longest)
        elif short == _SHORT_PROMPT:
            contexts.add(short // 4)
        points += [_decode_point(facts, batch, context, step_s) for context in sorted(contexts)]
    return points


def _decode_point(facts: ServerFacts, batch: int, context: int, step_s: float) -> DecodePoint:
    """What a request has decoded itself may cost more than its prompt, as it lies among what others decoded: answers
    are as long as in use where that takes a moment, and next to a context of many times that it would tell nothing."""
    in_pool = int(_FILLED_SHARE * facts.kv_tokens_capacity / batch) - context
    steps = min(_LONG_ANSWER, int(_LONG_ANSWER_S / step_s), in_pool)
    if steps < DECODE_TOKENS or context > 10 * steps:
        steps = DECODE_TOKENS
    return DecodePoint(batch, context, max(facts.max_prompt_tokens - steps, 1), steps)


def _rides(facts: ServerFacts, longest_step: int) -> list[RidePoint]:
    """One less than the limit may decode beside the prompt."""
    limit = _most_at_once(facts, _SHORT_PROMPT + RIDE_TOKENS) - 1
    batches = sorted({min(batch, limit) for batch in (1, 4, 16, 64) if min(batch, limit) > 0})
    beside = [(batch, _SHORT_PROMPT) for batch in batches]
    if facts.settings.mixed_chunk:
        beside += [(batch, min(facts.context_length // 4, 2048)) for batch in batches[1:]]
    return [
        RidePoint(batch, context, new, _fewest(new))
        for batch, context in beside
        for new in _RIDES
        if new + batch < longest_step
    ]
