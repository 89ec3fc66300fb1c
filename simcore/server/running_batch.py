"""The running batch: requests that decode together, as aggregates that are kept and never summed anew.

Decode steps are counted as they are launched. Every running request takes part in each, so a request's tokens follow
from the count: what changes with each step costs nothing per request, and a run of steps is advanced in one go.
"""

import heapq
from collections import Counter

from .request import ServerRequest

__all__ = ["CLIP_MAX_NEW_TOKENS", "RunningBatch"]

CLIP_MAX_NEW_TOKENS = 4096
"""SGLang reserves KV for at most so many output tokens of a request (``schedule_policy.py``)."""


class _Remaining:
    """The sum of ``min(remaining output tokens, 4096)`` over requests that all lose one a step."""

    def __init__(self) -> None:
        self.total = 0
        self.shrinking = 0
        self._steps = 0
        # Requests with more than 4096 tokens to go start to count down at a known step.
        self._starts: list[int] = []
        self._withdrawn: Counter[int] = Counter()

    def add(self, remaining: int) -> None:
        if remaining > CLIP_MAX_NEW_TOKENS:
            heapq.heappush(self._starts, self._steps + remaining - CLIP_MAX_NEW_TOKENS)
        else:
            self.shrinking += 1
        self.total += min(remaining, CLIP_MAX_NEW_TOKENS)

    def remove(self, remaining: int) -> None:
        if remaining > CLIP_MAX_NEW_TOKENS:
            self._withdrawn[self._steps + remaining - CLIP_MAX_NEW_TOKENS] += 1
        else:
            self.shrinking -= 1
        self.total -= min(remaining, CLIP_MAX_NEW_TOKENS)

    def advance(self, steps: int) -> None:
        self._steps += steps
        self.total -= steps * self.shrinking
        while self._starts and self._starts[0] <= self._steps:
            start = heapq.heappop(self._starts)
            if self._withdrawn[start]:
                self._withdrawn[start] -= 1
                continue
            self.shrinking += 1
            self.total -= self._steps - start


class RunningBatch:
    """Requests past their prefill. ``launched`` counts the decode steps launched so far."""

    def __init__(self, page_size: int) -> None:
        self.requests: dict[ServerRequest, None] = {}
        self.launched = 0
        self.context_tokens = 0
        self._page_size = page_size
        # How many requests take a new page at launch k: those whose class is -k modulo the page size.
        self._page_classes = [0] * page_size
        self._ends: list[tuple[int, int, ServerRequest]] = []
        self._sequence = 0
        self._open_ended = _Remaining()
        self._fixed_length = _Remaining()

    def __len__(self) -> int:
        return len(self.requests)

    def kv_tokens(self, request: ServerRequest) -> int:
        """KV tokens of a running request, the launched step's included."""
        return request.fill_tokens + self.launched - request.joined_at

    def outputs(self, request: ServerRequest) -> int:
        """Output tokens of a running request, computed or launched."""
        return request.generated + 1 + self.launched - request.joined_at

    def reserved_tokens(self, ratio: float, *, step_in_flight: bool) -> float:
        """KV tokens that the running requests may still need: all that those of fixed length ask for, and a ``ratio``
        of what the others may, each clipped at 4096. A decode step in flight has not delivered its tokens yet."""
        fixed, open_ended = self._fixed_length, self._open_ended
        if step_in_flight:
            return fixed.total + fixed.shrinking + (open_ended.total + open_ended.shrinking) * ratio
        return fixed.total + open_ended.total * ratio

    def add(self, request: ServerRequest) -> None:
        """A request's prefill was launched and gives its next token."""
        self._sequence += 1
        request.sequence = self._sequence
        request.joined_at = self.launched
        request.ends_at = self.launched + request.output_tokens - request.generated - 1
        request.running = True
        self.requests[request] = None
        self.context_tokens += request.fill_tokens
        self._page_classes[(request.fill_tokens - self.launched) % self._page_size] += 1
        heapq.heappush(self._ends, (request.ends_at, request.sequence, request))
        self._remaining(request).add(request.max_new_tokens - self.outputs(request))

    def remove(self, request: ServerRequest) -> None:
        """A request leaves; ``computed`` keeps the KV tokens it has."""
        request.computed = self.kv_tokens(request)
        request.running = False
        del self.requests[request]
        self.context_tokens -= request.computed
        self._page_classes[(request.computed - self.launched) % self._page_size] -= 1
        self._remaining(request).remove(request.max_new_tokens - self.outputs(request))

    def advance(self, steps: int) -> None:
        """Launch decode steps of the whole batch."""
        self.launched += steps
        self.context_tokens += steps * len(self.requests)
        self._open_ended.advance(steps)
        self._fixed_length.advance(steps)

    def tokens_needed(self, steps: int) -> int:
        """KV tokens, in whole pages, that the next ``steps`` decode steps allocate."""
        page = self._page_size
        if page == 1:
            return steps * len(self.requests)
        whole, rest = divmod(steps, page)
        # A request takes a page at the step that finds its last one full.
        partial = sum(self._page_classes[-(self.launched + step) % page] for step in range(rest))
        return (whole * len(self.requests) + partial) * page

    def next_end(self) -> int:
        """The launch at which the next running request computes its last token."""
        ends = self._ends
        while not ends[0][2].running or ends[0][2].sequence != ends[0][1]:
            heapq.heappop(ends)
        return ends[0][0]

    def pop_ended(self, launches: int) -> list[ServerRequest]:
        """Running requests whose last token was launched by then, in order of joining a step; each is returned once."""
        ended: list[ServerRequest] = []
        ends = self._ends
        while ends and ends[0][0] <= launches:
            _, sequence, request = heapq.heappop(ends)
            if request.running and request.sequence == sequence:
                ended.append(request)
        return ended

    def _remaining(self, request: ServerRequest) -> _Remaining:
        return self._fixed_length if request.ignore_eos else self._open_ended
