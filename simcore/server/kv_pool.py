"""A server's KV pool, exact in tokens.

    capacity = free + evictable in the prefix cache + locked in the prefix cache + private to requests

Requests hold whole pages. What the prefix cache has taken over from a request (``protected``) is locked by it and may
be shared; the rest of its tokens is private.
"""

from .pieces import PageAligner, Pieces, slice_pieces
from .radix_cache import RadixCache
from .request import ServerRequest

__all__ = ["KvPool"]


class KvPool:
    """Allocation, prefix matching and release, as SGLang's allocator and tree do them together."""

    def __init__(self, capacity_tokens: int, page_size: int, *, radix_cache: bool) -> None:
        self.page_size = page_size
        self.capacity = self.floor(capacity_tokens)
        self.free = self.capacity
        self.cache = RadixCache()
        self.peak_used = 0
        """The most that was in use when a request gave its KV back; between two such times use only grows."""
        self.caches = radix_cache
        """Whether prefixes are cached; if not, the cache stays empty."""
        self._aligner = PageAligner(page_size)

    @property
    def available(self) -> int:
        """Tokens that could be allocated now, by evicting all that no request needs."""
        return self.free + self.cache.evictable_tokens

    @property
    def used(self) -> int:
        """Tokens that requests hold or lock; evictable ones do not count, as in SGLang's num_used_tokens."""
        return self.capacity - self.free - self.cache.evictable_tokens

    def floor(self, tokens: int) -> int:
        """Whole pages within a number of tokens, in tokens."""
        return tokens - tokens % self.page_size

    def ceil(self, tokens: int) -> int:
        """Whole pages that hold a number of tokens, in tokens."""
        return tokens + -tokens % self.page_size

    def reclaim(self, tokens: int) -> bool:
        """Evict until ``tokens`` are free; whether they are."""
        free = self.free
        if free < tokens:
            self.free = free = free + self.cache.evict(tokens - free)
        return free >= tokens

    def allocate(self, tokens: int) -> None:
        """Take ``tokens`` (whole pages) out of the pool; the caller has checked that they are available."""
        if self.free < tokens and not self.reclaim(tokens):
            raise RuntimeError(f"KV pool overdrawn: {tokens} tokens wanted, {self.free} free of {self.capacity}")
        self.free -= tokens

    def aligned_content(self, request: ServerRequest) -> Pieces:
        """The whole pages of prompt and outputs so far."""
        pieces = request.content(request.generated) if request.generated else request.pieces
        return pieces if self.page_size == 1 else self._aligner.align(pieces)

    def cached_prefix(self, request: ServerRequest) -> int:
        """Tokens of the request that are cached now, leaving at least one to compute; touches but does not lock
        them."""
        if not self.caches:
            return 0
        return self.cache.match(self.aligned_content(request), self.floor(request.fill_tokens - 1))[1]

    def match(self, request: ServerRequest) -> None:
        """Find and lock the longest cached prefix; at least one token is left to compute. What no other request has
        is not looked for, unless its own KV was taken back."""
        if not self.caches:
            return
        node, tokens = self.cache.match(self.aligned_content(request), self.floor(request.fill_tokens - 1))
        if tokens:
            self.cache.lock(node)
            request.node = node
            request.protected = request.computed = tokens

    def unmatch(self, request: ServerRequest) -> None:
        """Undo ``match``: the request was not admitted."""
        if request.node is not None:
            self.cache.unlock(request.node)
            request.node, request.protected, request.computed = None, 0, 0

    def checkpoint(self, request: ServerRequest, tokens: int) -> None:
        """Hand the request's first ``tokens`` tokens to the prefix cache, where others can find them; it locks them."""
        if not self.caches:
            return
        if not request.shareable and request.retractions == 0:
            held = self.floor(tokens) if self.page_size > 1 else tokens
            request.stamp = self.cache.hold(held - request.protected)
            request.protected = held
            return
        before = request.node
        self._insert(request, tokens)
        if request.node is not None and request.node is not before:
            self.cache.lock(request.node)
            if before is not None:
                self.cache.unlock(before)

    def release(self, request: ServerRequest, allocated_tokens: int, keep_tokens: int) -> None:
        """Give the request's KV back, of which the first ``keep_tokens`` stay in the prefix cache, evictable.

        ``allocated_tokens`` is what it had computed or launched, before rounding up to pages.
        """
        used = self.capacity - self.free - self.cache.evictable_tokens
        if used > self.peak_used:
            self.peak_used = used
        if not request.shareable and request.retractions == 0:
            self._release_unshared(request, allocated_tokens, keep_tokens)
            return
        locked = request.node
        if self.caches and keep_tokens > request.protected:
            self._insert(request, keep_tokens)
        self.free += self.ceil(allocated_tokens) - request.protected
        if locked is not None:
            self.cache.unlock(locked)
        request.node, request.protected, request.computed = None, 0, 0

    def _release_unshared(self, request: ServerRequest, allocated_tokens: int, keep_tokens: int) -> None:
        held, kept, prompt = request.protected, keep_tokens, request.prompt_tokens
        if self.page_size > 1:
            kept, prompt, allocated_tokens = self.floor(kept), self.floor(prompt), self.ceil(allocated_tokens)
        if not self.caches:
            self.free += allocated_tokens
        elif keep_tokens:
            self.cache.retire(held, prompt, kept - prompt)
            self.free += allocated_tokens - kept
        else:
            self.free += allocated_tokens - held
            if held:
                self.cache.settle(self.aligned_content(request), held, request.stamp)
        request.protected = request.computed = 0

    def _insert(self, request: ServerRequest, tokens: int) -> None:
        """Insert the request's sequence up to ``tokens``; tokens that another had cached meanwhile are freed.

        The tree ends a node at the prompt's end, so that an answer can be evicted without its prompt.
        """
        prompt, stop = request.prompt_tokens, tokens
        if self.page_size > 1:
            prompt, stop = self.floor(prompt), self.floor(stop)
        for end in (prompt, stop) if request.protected < prompt < stop else (stop,):
            start = request.protected
            if end > start:
                pieces = self._pieces(request, start, tokens)
                request.node, matched = self.cache.insert(request.node or self.cache.root, pieces, end - start)
                self.free += matched
                request.protected = end

    def _pieces(self, request: ServerRequest, start: int, stop: int) -> Pieces:
        """The whole pages of tokens ``start:stop``; ``start`` is the beginning of a page."""
        outputs = stop - request.prompt_tokens
        if self.page_size == 1:
            if start == 0 and outputs <= 0:
                return request.pieces
            if start == request.prompt_tokens:
                return [(request.answer_segment, 0, outputs)]
        return slice_pieces(self._aligner.align(request.content(outputs)), start, stop)
