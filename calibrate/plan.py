"""Which points are measured, chosen from the server's own limits."""

from collections.abc import Sequence
from dataclasses import dataclass

from .server_facts import ServerFacts

__all__ = ["DecodePoint", "Plan", "Point", "PrefillPoint", "ReportPoint", "RidePoint", "make_plan"]

DECODE_TOKENS = 33
"""Tokens that each request of a decode run generates: 31 full steps. A machine drifts more between two visits of a
point than the mean of so few scatters, so short visits and more rounds of them tell more in the same time."""

_SHORT_PROMPT = 64
_LONGEST_CONTEXT = 8192
_POOL_SHARE = 0.4  # of the KV pool that a decode run may take: more makes prefilling it the most of the work
_PREFILLS = (1, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384)
_CACHED_NEW = (32, 256, 1024)
_RIDES = (32, 256, 1024)


@dataclass(frozen=True, slots=True)
class PrefillPoint:
    """A prompt of ``new_tokens`` after ``cached_tokens`` that the radix cache holds."""

    new_tokens: int
    cached_tokens: int

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
    """``batch`` requests with prompts of ``prompt_tokens``, decoding together."""

    batch: int
    prompt_tokens: int

    @property
    def name(self) -> str:
        return f"decode batch {self.batch} at {self.prompt_tokens}"

    @property
    def work_tokens(self) -> int:
        return self.batch * self.prompt_tokens

    @property
    def steps(self) -> int:
        return DECODE_TOKENS


@dataclass(frozen=True, slots=True)
class RidePoint:
    """A prompt that comes while ``batch`` requests decode: a mixed step, or a prefill step between decode steps."""

    batch: int
    prompt_tokens: int
    new_tokens: int

    @property
    def name(self) -> str:
        return f"prefill {self.new_tokens} among {self.batch} at {self.prompt_tokens}"

    @property
    def work_tokens(self) -> int:
        return self.batch * self.prompt_tokens + self.new_tokens

    @property
    def steps(self) -> int:
        return DECODE_TOKENS


@dataclass(frozen=True, slots=True)
class ReportPoint:
    """Readings of the load report while one request decodes."""

    name: str = "load report"
    work_tokens: int = _SHORT_PROMPT
    steps: int = 2 * DECODE_TOKENS


Point = PrefillPoint | DecodePoint | RidePoint | ReportPoint


@dataclass(frozen=True, slots=True)
class Plan:
    """The points in the order of a first pass: what is cheap and needed most comes first."""

    points: tuple[Point, ...]

    def describe(self) -> str:
        """One line."""
        counts = [
            f"{sum(isinstance(point, kind) for point in self.points)} {name}"
            for kind, name in ((PrefillPoint, "prefill"), (DecodePoint, "decode"), (RidePoint, "mixed"))
        ]
        return f"{', '.join(counts)} points and the load report"


def make_plan(facts: ServerFacts) -> Plan:
    """Prefill lengths up to a step's limit, batches up to the running limit, contexts up to a share of the pool."""
    settings = facts.settings
    longest_step = min(
        settings.chunked_prefill_size or settings.max_prefill_tokens,
        settings.max_prefill_tokens,
        facts.max_prompt_tokens,
    )
    plain = [PrefillPoint(tokens, 0) for tokens in _up_to(_PREFILLS, longest_step - 1)]
    cached = _cached_prefills(facts, longest_step) if settings.radix_cache else []
    decodes = _decodes(facts)
    shorts = [point for point in decodes if point.prompt_tokens == _SHORT_PROMPT]
    longer = sorted((point for point in decodes if point not in shorts), key=lambda point: point.work_tokens)
    # A fit needs two contexts of each batch; with those, a short budget is not for nothing.
    second, rest = longer[: len(shorts)], longer[len(shorts) :]
    points: list[Point] = [*plain, *shorts, *second, *_rides(facts, longest_step), ReportPoint(), *cached, *rest]
    return Plan(tuple(points))


def _up_to(values: Sequence[int], largest: int) -> list[int]:
    """The values below ``largest``, and ``largest`` itself."""
    return [*(value for value in values if value < 0.9 * largest), largest]


def _cached_prefills(facts: ServerFacts, longest_step: int) -> list[PrefillPoint]:
    depth = min(facts.max_prompt_tokens, facts.kv_tokens_capacity // 2, 2 * _LONGEST_CONTEXT)
    # A prefix has to be prefilled first, in one step of its own where it is to be cheap.
    depths = sorted({depth // 8, depth // 4, depth // 2})
    page = facts.settings.page_size
    return [
        PrefillPoint(new, cached // page * page)
        for cached in depths
        for new in _CACHED_NEW
        if cached + new < facts.max_prompt_tokens and new < longest_step
    ]


def _batches(facts: ServerFacts) -> list[int]:
    """Powers of two up to the running limit, and the limit, as far as the pool holds them with short prompts."""
    limit = min(
        facts.settings.max_running_requests, int(0.8 * facts.kv_tokens_capacity / (_SHORT_PROMPT + DECODE_TOKENS))
    )
    batches = [2**power for power in range(limit.bit_length()) if 2**power < 0.8 * limit]
    return [*batches, max(limit, 1)]


def _decodes(facts: ServerFacts) -> list[DecodePoint]:
    points = []
    for batch in _batches(facts):
        longest = min(
            facts.context_length // 2,
            _LONGEST_CONTEXT,
            int(_POOL_SHARE * facts.kv_tokens_capacity / batch) - DECODE_TOKENS,
        )
        contexts = {_SHORT_PROMPT}
        if longest >= 4 * _SHORT_PROMPT:
            contexts |= {longest, int((_SHORT_PROMPT * longest) ** 0.5)}
        elif longest > _SHORT_PROMPT:
            contexts.add(longest)
        else:
            contexts.add(_SHORT_PROMPT // 4)
        points += [DecodePoint(batch, context) for context in sorted(contexts)]
    return points


def _rides(facts: ServerFacts, longest_step: int) -> list[RidePoint]:
    """One less than the limit may decode beside the prompt."""
    limit = _batches(facts)[-1] - 1
    batches = sorted({min(batch, limit) for batch in (1, 4, 16, 64) if min(batch, limit) > 0})
    points = [RidePoint(batch, _SHORT_PROMPT, new) for batch in batches for new in _RIDES if new + batch < longest_step]
    if facts.settings.mixed_chunk:
        context = min(facts.context_length // 4, 2048)
        points += [
            RidePoint(batch, context, new) for batch in batches[1:] for new in _RIDES if new + batch < longest_step
        ]
    return points
