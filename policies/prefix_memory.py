"""A router's guess at what is cached where, and the policies that have one."""

import random
from collections import deque

from .base import Policy
from .prefix_tree import PrefixTree
from .views import PREFIX_BLOCK_TOKENS, RequestView, ServerView

__all__ = ["PrefixAware", "PrefixMemory"]


class PrefixMemory:
    """What servers are believed to have cached, from what they were sent; never from a look at their caches.

    most_tokens  bound on each server's share; None for none
    ttl_s        what a server was not sent for so long is forgotten; None for never
    every_s      seconds between two looks at bound and ttl; 0: at each request
    delay_s      how long after ``sent`` it becomes known: the way of a server's cache event
    """

    def __init__(
        self,
        most_tokens: int | None = None,
        ttl_s: float | None = None,
        every_s: float = 0.0,
        delay_s: float = 0.0,
    ) -> None:
        self.tree = PrefixTree()
        self._most_blocks = None if most_tokens is None else most_tokens // PREFIX_BLOCK_TOKENS
        self._ttl_s = ttl_s
        self._every_s = every_s
        self._delay_s = delay_s
        self._tidy_at = every_s
        self._coming: deque[tuple[float, tuple[int, ...], str]] = deque()

    def sent(self, request: RequestView, server_id: str, now: float) -> None:
        """The server got the request, so that it will have its prompt."""
        if self._delay_s:
            self._coming.append((now + self._delay_s, request.prefix_hashes, server_id))
            return
        self._learn(request.prefix_hashes, server_id, now)

    def cached_blocks(self, request: RequestView, now: float) -> dict[str, int]:
        """Blocks of the prompt that each server has; without those that have none."""
        self.bring_up_to(now)
        return self.tree.matches(request.prefix_hashes)

    def bring_up_to(self, now: float) -> None:
        """Take in what has become known by now."""
        coming = self._coming
        while coming and coming[0][0] <= now:
            at, blocks, server_id = coming.popleft()
            self._learn(blocks, server_id, at)

    def _learn(self, blocks: tuple[int, ...], server_id: str, now: float) -> None:
        tree, most = self.tree, self._most_blocks
        tree.insert(blocks, server_id, now)
        if now < self._tidy_at:
            return
        self._tidy_at = now + self._every_s
        if self._ttl_s is not None:
            tree.expire(now - self._ttl_s)
        if most is not None:
            for each in list(tree.sizes) if self._every_s else (server_id,):
                tree.evict(each, most)


class PrefixAware(Policy):
    """To be made into policies that remember what they sent where, in ``memory``."""

    needs = frozenset({"prefix_hashes"})

    def __init__(self, rng: random.Random, memory: PrefixMemory) -> None:
        super().__init__(rng)
        self.memory = memory

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        self.memory.sent(request, server.server_id, now)
