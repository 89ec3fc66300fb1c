"""A server's KV pool, exact in tokens.

    capacity = free + evictable in the prefix cache + locked in the prefix cache + private to requests

Requests hold whole pages. What the prefix cache has taken over from a request (``protected``) is locked by it and may be
shared; the rest of its tokens is private.
"""

from .pieces import PageAligner, Pieces
from .radix_cache import RadixCache
from .request import ServerRequest

__all__ = ["KvPool"]


class KvPool:
    """Allocation, prefix matching and release, as SGLang's allocator and tree do them together."""

    def __init__(self, capacity_tokens: int, page_size: int, *, radix_cache: bool) -> None:
        self.page_size = page_size
        self.capacity = self.floor(capacity_tokens)
        self.free = self.capacity
        self.cache = RadixCache() if radix_cache else None
        self._aligner = PageAligner(page_size)

    @property
    def available(self) -> int:
        """Tokens that could be allocated now, by evicting all that no request needs."""
        return self.free + self.cache.evictable_tokens if self.cache else self.free

    @property
    def used(self) -> int:
        """Tokens that requests hold or lock; evictable ones do not count, as in SGLang's num_used_tokens."""
        return self.capacity - self.available

    def floor(self, tokens: int) -> int:
        """Whole pages within a number of tokens, in tokens."""
        return tokens - tokens % self.page_size

    def ceil(self, tokens: int) -> int:
        """Whole pages that hold a number of tokens, in tokens."""
        return -(-tokens // self.page_size) * self.page_size

    def reclaim(self, tokens: int) -> bool:
        """Evict until ``tokens`` are free; whether they are."""
        if self.free < tokens and self.cache:
            self.free += self.cache.evict(tokens - self.free)
        return self.free >= tokens

    def allocate(self, tokens: int) -> None:
        """Take ``tokens`` (whole pages) out of the pool; the caller has checked that they are available."""
        if not self.reclaim(tokens):
            raise RuntimeError(f"KV pool overdrawn: {tokens} tokens wanted, {self.free} free of {self.capacity}")
        self.free -= tokens

    def aligned_content(self, request: ServerRequest) -> Pieces:
        """The whole pages of prompt and outputs so far."""
        return self._aligner.align(request.content(request.generated))

    def cached_prefix(self, request: ServerRequest) -> int:
        """Tokens of the request that are cached now; touches but does not lock them."""
        if self.cache is None:
            return 0
        return self.cache.match(self.aligned_content(request), self.floor(request.fill_tokens - 1))[1]

    def match(self, request: ServerRequest) -> None:
        """Find and lock the longest cached prefix; at least one token is left to compute."""
        if self.cache is None:
            return
        node, tokens = self.cache.match(self.aligned_content(request), self.floor(request.fill_tokens - 1))
        self.cache.lock(node)
        request.node, request.protected, request.computed = node, tokens, tokens

    def unmatch(self, request: ServerRequest) -> None:
        """Undo ``match``: the request was not admitted."""
        if self.cache is not None and request.node is not None:
            self.cache.unlock(request.node)
            request.node, request.protected, request.computed = None, 0, 0

    def checkpoint(self, request: ServerRequest, tokens: int) -> None:
        """Hand the request's first ``tokens`` tokens to the prefix cache, where others can find them; it locks them."""
        if self.cache is None:
            return
        before = request.node
        self._insert(request, tokens)
        if request.node is not before:
            assert request.node is not None
            self.cache.lock(request.node)
            if before is not None:
                self.cache.unlock(before)

    def release(self, request: ServerRequest, allocated_tokens: int, keep_tokens: int) -> None:
        """Give the request's KV back, of which the first ``keep_tokens`` stay in the prefix cache, evictable.

        ``allocated_tokens`` is what it had computed or launched, before rounding up to pages.
        """
        locked = request.node
        if self.cache is not None and keep_tokens > request.protected:
            self._insert(request, keep_tokens)
        self.free += self.ceil(allocated_tokens) - request.protected
        if self.cache is not None and locked is not None:
            self.cache.unlock(locked)
        request.node, request.protected, request.computed = None, 0, 0

    def _insert(self, request: ServerRequest, tokens: int) -> None:
        """Insert the request's sequence up to ``tokens``; tokens that another had cached meanwhile are freed.

        The tree ends a node at the prompt's end, so that an answer can be evicted without its prompt.
        """
        assert self.cache is not None
        pieces = self._aligner.align(request.content(tokens - request.prompt_tokens))
        stop, prompt = self.floor(tokens), self.floor(request.prompt_tokens)
        for end in (prompt, stop) if request.protected < prompt < stop else (stop,):
            if end > request.protected:
                below = request.node or self.cache.root
                request.node, matched = self.cache.insert(below, pieces, request.protected, end)
                self.free += matched - request.protected
                request.protected = end
