"""Which waiting requests are prefilled next: SGLang's PrefillAdder (``managers/schedule_policy.py``).

Two budgets bound the tokens computed in a step (``max_prefill_tokens``, ``chunked_prefill_size``), one the KV pool:
what the running and the admitted requests may need until they end. (SGLang has a second, what the step allocates now;
it is never the smaller one.)
"""

from enum import Enum, auto

from .kv_pool import KvPool
from .request import ServerRequest
from .running_batch import CLIP_MAX_NEW_TOKENS
from .step import Prefill, Step

__all__ = ["CONTINUE", "NO_BUDGET", "NO_KV", "PrefillAdder", "Verdict"]


class Verdict(Enum):
    """What an attempt to admit a request says of the next one."""

    CONTINUE = auto()
    NO_KV = auto()
    """The KV pool has no room: the batch is full until a request leaves."""
    NO_BUDGET = auto()
    """The step has no room."""


CONTINUE, NO_KV, NO_BUDGET = Verdict


class PrefillAdder:
    """Collects the requests of one prefill ``step``, which then takes ``allocated`` KV tokens and gives those that it
    ``completed`` their next token.

    ``reserved`` is what the running requests may still need, ``mixed_tokens`` the decode rows that share the step.
    """

    __slots__ = (
        "_chunk_left",
        "_input_left",
        "_pool",
        "_reserved",
        "allocated",
        "chunked",
        "completed",
        "prefills",
        "step",
    )

    def __init__(
        self, pool: KvPool, max_prefill_tokens: int, chunk_tokens: int | None, reserved: float, mixed_tokens: int
    ) -> None:
        self.prefills: list[Prefill] = []
        self.step = Step(0, 0, self.prefills)
        self.step.attended = 0.0
        self.completed: list[ServerRequest] = []
        self.allocated = 0
        self.chunked: ServerRequest | None = None
        self._pool = pool
        self._input_left = max_prefill_tokens - mixed_tokens
        self._chunk_left = None if chunk_tokens is None else chunk_tokens - mixed_tokens
        self._reserved = reserved + mixed_tokens

    def verdict(self) -> Verdict:
        """Whether another request can be tried."""
        pool = self._pool
        if pool.free + pool.cache.evictable_tokens <= self._reserved:
            return NO_KV
        if self._input_left <= 0 or (self._chunk_left is not None and self._chunk_left <= 0):
            return NO_BUDGET
        return CONTINUE

    def continue_chunked(self, request: ServerRequest) -> None:
        """Add the next chunk of a request under way.

        It goes on also into what others may need, because only its end frees its KV; where nothing at all is left it
        waits, and decoding retracts (SGLang's allocation would fail there).
        """
        assert self._chunk_left is not None
        remaining, available = request.fill_tokens - request.computed, self._pool.available
        left = min(self._chunk_left, int(available - self._reserved))
        tokens = min(remaining, left if left > 0 else self._chunk_left, available)
        if tokens < remaining:
            tokens = self._pool.floor(tokens)
            self.chunked = request
        else:
            self.completed.append(request)
        if tokens > 0:
            self._commit(request, tokens, 0 if self.chunked else min(request.max_new_tokens, CLIP_MAX_NEW_TOKENS))

    def try_add(self, request: ServerRequest) -> Verdict:
        """Admit a waiting request, whole or its first chunk, or say why not."""
        pool, generated, reserve = self._pool, request.generated, request.max_new_tokens
        if request.shareable or request.retractions:
            pool.match(request)
        tokens = request.prompt_tokens + generated - request.computed
        output_tokens = reserve - generated
        if output_tokens > CLIP_MAX_NEW_TOKENS:
            output_tokens = CLIP_MAX_NEW_TOKENS
        available = pool.free + pool.cache.evictable_tokens
        if tokens + output_tokens + pool.page_size >= available - self._reserved:
            pool.unmatch(request)
            return NO_KV
        fitting = tokens
        if self._chunk_left is None or pool.page_size > 1 or tokens > self._chunk_left:
            fitting = self._fitting(tokens)
        if fitting <= 0:
            pool.unmatch(request)
            return NO_BUDGET
        if fitting < tokens:
            self.chunked, reserve = request, 0
        else:
            self.completed.append(request)
            if reserve > CLIP_MAX_NEW_TOKENS:
                reserve = CLIP_MAX_NEW_TOKENS
        self._commit(request, fitting, reserve)
        return self.verdict()

    def _fitting(self, tokens: int) -> int:
        """How many of a request's tokens the step's budgets let in: all, a chunk of them, or none.

        Without chunking the first request comes in whatever its length.
        """
        paged = tokens if self._pool.page_size == 1 else self._pool.ceil(tokens)
        if self._chunk_left is None:
            return 0 if self.prefills and paged >= self._input_left else tokens
        return tokens if paged <= self._chunk_left else self._pool.floor(self._chunk_left)

    def _commit(self, request: ServerRequest, tokens: int, reserve: int) -> None:
        pool, step, start = self._pool, self.step, request.computed
        request.computed = stop = start + tokens
        self.prefills.append((request, start, stop, request.retractions))
        step.new_tokens += tokens
        step.attended += tokens * (start + tokens / 2)
        page, paged = pool.page_size, tokens
        if page > 1:
            paged = pool.ceil(tokens)
            self.allocated += pool.ceil(stop) - pool.ceil(start)
        else:
            self.allocated += tokens
        self._reserved += paged + page + reserve
        self._input_left -= paged
        if self._chunk_left is not None:
            self._chunk_left -= paged
