"""What a router believes the servers' prefix caches hold: a radix tree over the prompts that it sent them.

Prompts are tuples of chained block hashes (``RequestView.prefix_hashes``): two are equal up to a block exactly if they
have the same hash there. So an edge of any length is compared by its last block alone, and where two prompts part is
found by bisection: the cost of a look-up is in the number of edges, not in the length of the prompt.
"""

import heapq
from collections import defaultdict
from collections.abc import Container
from itertools import count

__all__ = ["PrefixTree"]

Blocks = tuple[int, ...]


class _Node:
    """The edge ``blocks[start:end]`` of a prompt. ``used`` has the last use by each server that holds all of it, hence
    all that leads to it, in the order in which they came to hold it."""

    __slots__ = ("blocks", "children", "end", "parent", "start", "used")

    def __init__(self, blocks: Blocks, start: int, end: int, parent: "_Node | None") -> None:
        self.blocks = blocks
        self.start = start
        self.end = end
        self.parent = parent
        self.children: dict[int, _Node] = {}
        self.used: dict[str, float] = {}

    def common(self, blocks: Blocks) -> int:
        """Up to where a prompt, equal in the edge's first block, is equal."""
        mine, high = self.blocks, min(self.end, len(blocks))
        if mine[high - 1] == blocks[high - 1]:
            return high
        low = self.start + 1
        while low < high:
            middle = (low + high + 1) // 2
            if mine[middle - 1] == blocks[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return low

    def is_leaf_of(self, server_id: str) -> bool:
        """Whether the server holds nothing beyond it."""
        return not any(server_id in child.used for child in self.children.values())


class PrefixTree:
    """Which server was sent which prefixes, least recently used ones forgotten first, longest first among those.

    ``sizes`` has the blocks that each server is believed to hold.
    """

    def __init__(self) -> None:
        self.sizes: defaultdict[str, int] = defaultdict(int)
        self._root = _Node((), 0, 0, None)
        self._numbers = count()
        # Each server's leaves by their last use when they were put here: what was used since, or has been grown beyond,
        # is put right when it comes up.
        self._leaves: defaultdict[str, list[tuple[float, int, _Node]]] = defaultdict(list)

    def matches(self, blocks: Blocks) -> dict[str, int]:
        """How many of the prompt's first blocks each server holds; without those that hold none."""
        found: dict[str, int] = {}
        for node, depth in self._walk(blocks):
            found.update(dict.fromkeys(node.used, depth))
        return found

    def longest(self, blocks: Blocks, among: Container[str]) -> tuple[str, int] | None:
        """Of these servers, the one that holds most of the prompt and how many blocks; of several, the one that has
        held it longest."""
        for node, depth in reversed(self._walk(blocks)):
            for server_id in node.used:
                if server_id in among:
                    return server_id, depth
        return None

    def insert(self, blocks: Blocks, server_id: str, now: float) -> None:
        """The server was sent this prompt."""
        node, is_new = self._root, False
        for child, end in self._walk(blocks):
            node = child if end == child.end else self._split(child, end)
            is_new = self._use(node, server_id, now)
        if node.end < len(blocks):
            leaf = _Node(blocks, node.end, len(blocks), node)
            node.children[blocks[node.end]] = leaf
            node, is_new = leaf, self._use(leaf, server_id, now)
        if is_new:
            heapq.heappush(self._leaves[server_id], (now, next(self._numbers), node))

    def evict(self, server_id: str, most_blocks: int) -> None:
        """Forget what the server was not sent for longest, until it holds at most ``most_blocks``."""
        while self.sizes[server_id] > most_blocks and self._drop_oldest(server_id, float("inf")):
            pass

    def expire(self, before: float) -> None:
        """Forget what no server was sent since ``before``."""
        for server_id in self._leaves:
            while self._drop_oldest(server_id, before):
                pass

    def _walk(self, blocks: Blocks) -> list[tuple[_Node, int]]:
        """The edges along a prompt, each with the depth up to which it is equal: its end, but for the last one."""
        path: list[tuple[_Node, int]] = []
        node, depth, total = self._root, 0, len(blocks)
        while depth < total:
            child = node.children.get(blocks[depth])
            if child is None:
                break
            depth = child.common(blocks)
            path.append((child, depth))
            if depth < child.end:
                break
            node = child
        return path

    def _use(self, node: _Node, server_id: str, now: float) -> bool:
        """Whether the server did not hold it before."""
        is_new = server_id not in node.used
        node.used[server_id] = now
        if is_new:
            self.sizes[server_id] += node.end - node.start
        return is_new

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut an edge in two; the lower part stays the node that it was, for the heaps have it. Returns the upper."""
        parent = node.parent
        assert parent is not None
        upper = _Node(node.blocks, node.start, at, parent)
        upper.used = dict(node.used)
        parent.children[node.blocks[node.start]] = upper
        upper.children[node.blocks[at]] = node
        node.parent, node.start = upper, at
        return upper

    def _drop_oldest(self, server_id: str, before: float) -> bool:
        """Forget the leaf that the server used longest ago, if that was ``before``; whether there was one."""
        leaves = self._leaves[server_id]
        while leaves:
            at, number, node = leaves[0]
            used = node.used.get(server_id)
            if used is None or not node.is_leaf_of(server_id):
                heapq.heappop(leaves)
            elif used > at:
                heapq.heapreplace(leaves, (used, number, node))
            elif used >= before:
                return False
            else:
                heapq.heappop(leaves)
                self._drop(node, server_id)
                return True
        return False

    def _drop(self, node: _Node, server_id: str) -> None:
        parent = node.parent
        assert parent is not None
        del node.used[server_id]
        self.sizes[server_id] -= node.end - node.start
        if not node.used:
            del parent.children[node.blocks[node.start]]
        if server_id in parent.used and parent.is_leaf_of(server_id):
            heapq.heappush(self._leaves[server_id], (parent.used[server_id], next(self._numbers), parent))
