"""The running batch: requests that decode together, as aggregates that are kept and never summed anew.

Decode steps are counted as they are launched, and every running request takes part in each. So whatever grows with the
steps, of one request or of all, is a straight line over that count, and a run of steps is advanced in one addition.
"""

import heapq
from dataclasses import dataclass

from .request import ServerRequest

__all__ = ["CLIP_MAX_NEW_TOKENS", "RunningBatch"]

CLIP_MAX_NEW_TOKENS = 4096
"""SGLang reserves KV for at most so many output tokens of a request (``schedule_policy.py``)."""


@dataclass(slots=True)
class _Owed:
    """Over a group of running requests, the sum of ``min(remaining output tokens, 4096)``: after some launches
    ``at_zero - shrinking * launches``, as each takes one off those that have no more than 4096 to go."""

    at_zero: int = 0
    shrinking: int = 0


class RunningBatch:
    """Requests past their prefill. ``launched`` counts the decode steps launched so far; adding to it launches more.

    ``ends`` is a heap of (launch that computes the last token, order of joining, request), of all whose last token is
    not launched yet.
    """

    def __init__(self, page_size: int) -> None:
        self.requests: dict[ServerRequest, None] = {}
        self.size = 0
        self.launched = 0
        self.ends: list[tuple[int, int, ServerRequest]] = []
        self._page_size = page_size
        # How many requests take a new page at launch k: those whose class is -k modulo the page size.
        self._page_classes = [0] * page_size
        self._sequence = 0
        self.tokens_at_zero = 0
        """The KV tokens of all requests less one for each of them and launch."""
        self._open_ended = _Owed()
        self._fixed_length = _Owed()
        # The launch from which on a request with more than 4096 tokens to go counts down.
        self._long: list[tuple[int, int, ServerRequest]] = []

    @property
    def context_tokens(self) -> int:
        """KV tokens of all running requests, the launched steps' included."""
        return self.tokens_at_zero + self.size * self.launched

    def outputs(self, request: ServerRequest) -> int:
        """Output tokens of a running request, computed or launched."""
        return request.generated + 1 + self.launched - request.joined_at

    def reserved_tokens(self, ratio: float, *, step_in_flight: bool) -> float:
        """KV tokens that the running requests may still need: all that those of fixed length ask for, and a ``ratio``
        of what the others may, each clipped at 4096. A decode step in flight has not delivered its tokens yet."""
        fixed, open_ended = self._fixed_length, self._open_ended
        processed = self.launched - step_in_flight
        if self._long:
            self._count_down(processed)
        tokens = fixed.at_zero - fixed.shrinking * processed
        return tokens + (open_ended.at_zero - open_ended.shrinking * processed) * ratio

    def add(self, request: ServerRequest) -> None:
        """A request's prefill was launched and gives its next token."""
        launched = self.launched
        self._sequence = sequence = self._sequence + 1
        fill_tokens = request.prompt_tokens + request.generated
        request.joined_at = launched
        ends_at = launched + request.output_tokens - request.generated - 1
        request.running = True
        self.requests[request] = None
        self.size += 1
        self.tokens_at_zero += fill_tokens - launched
        if self._page_size > 1:
            self._page_classes[(fill_tokens - launched) % self._page_size] += 1
        heapq.heappush(self.ends, (ends_at, sequence, request))
        owed = self._fixed_length if request.ignore_eos else self._open_ended
        remaining = request.max_new_tokens - request.generated - 1
        request.counts_down = remaining <= CLIP_MAX_NEW_TOKENS
        if not request.counts_down:
            owed.at_zero += CLIP_MAX_NEW_TOKENS
            request.sequence = sequence
            heapq.heappush(self._long, (launched + remaining - CLIP_MAX_NEW_TOKENS, sequence, request))
        else:
            owed.at_zero += remaining + launched
            owed.shrinking += 1

    def withdraw(self, request: ServerRequest) -> None:
        """A request leaves before its end; ``computed`` keeps the KV tokens it has."""
        self.ends = [entry for entry in self.ends if entry[2] is not request]
        heapq.heapify(self.ends)
        self.remove(request)

    def remove(self, request: ServerRequest) -> None:
        """A request whose last token was launched leaves; ``computed`` keeps the KV tokens it has."""
        launched = self.launched
        request.computed = computed = request.prompt_tokens + request.generated + launched - request.joined_at
        request.running = False
        del self.requests[request]
        self.size -= 1
        self.tokens_at_zero -= computed - launched
        if self._page_size > 1:
            self._page_classes[(computed - launched) % self._page_size] -= 1
        owed = self._fixed_length if request.ignore_eos else self._open_ended
        if request.counts_down:
            owed.at_zero -= request.max_new_tokens - request.generated - 1 + request.joined_at
            owed.shrinking -= 1
        else:
            owed.at_zero -= CLIP_MAX_NEW_TOKENS

    def _count_down(self, launches: int) -> None:
        """Note which of the requests that had more than 4096 tokens to go have no more than that."""
        while self._long and self._long[0][0] <= launches:
            start, sequence, request = heapq.heappop(self._long)
            if request.running and request.sequence == sequence:
                owed = self._fixed_length if request.ignore_eos else self._open_ended
                owed.at_zero += start
                owed.shrinking += 1
                request.counts_down = True

    def tokens_needed(self, steps: int) -> int:
        """KV tokens, in whole pages, that the next ``steps`` decode steps allocate."""
        page = self._page_size
        if page == 1:
            return steps * self.size
        whole, rest = divmod(steps, page)
        # A request takes a page at the step that finds its last one full.
        partial = sum(self._page_classes[-(self.launched + step) % page] for step in range(rest))
        return (whole * self.size + partial) * page

    def pop_ended(self, launches: int) -> list[ServerRequest]:
        """Running requests whose last token was launched by then, in order of joining a step; each is returned once."""
        ended: list[ServerRequest] = []
        ends = self.ends
        while ends and ends[0][0] <= launches:
            ended.append(heapq.heappop(ends)[2])
        return ended
