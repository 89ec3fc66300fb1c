"""The prefix cache: SGLang's radix tree (``mem_cache/radix_cache.py``), over pieces instead of tokens.

The tree knows nothing of the pool; its nodes hold KV tokens that are either locked by a request or evictable.
"""

import heapq
from itertools import count

from .pieces import Pieces, slice_pieces

__all__ = ["Node", "RadixCache"]


class Node:
    """A run of cached tokens below its parent's. ``locks`` counts the requests that need it."""

    __slots__ = ("children", "last_access", "locks", "parent", "pieces", "tokens")

    def __init__(self, parent: "Node | None", pieces: Pieces, tokens: int, last_access: int) -> None:
        self.parent = parent
        self.pieces = pieces
        self.tokens = tokens
        self.last_access = last_access
        self.children: dict[tuple[int, int], Node] = {}
        self.locks = 0


class RadixCache:
    """Longest-prefix matching, locking, and eviction of the least recently used leaf.

    ``evictable_tokens`` are those in unlocked nodes; ``locked_tokens`` the others.
    """

    def __init__(self) -> None:
        self.root = Node(None, [], 0, 0)
        self.root.locks = 1
        self.evictable_tokens = 0
        self.locked_tokens = 0
        self._clock = 0
        # Unlocked leaves by last access. An entry is stale, and skipped, once its node was touched, locked, extended or
        # removed; whatever makes a node evictable again pushes a new one.
        self._leaves: list[tuple[int, int, Node]] = []
        self._sequence = count()

    def match(self, pieces: Pieces, limit: int) -> tuple[Node, int]:
        """The deepest node on the cached prefix of at most ``limit`` tokens, and that prefix's tokens.

        Touches the path, and splits the last node where the match ends inside it.
        """
        self._clock += 1
        return self._walk(self.root, pieces, 0, limit)

    def insert(self, below: Node, pieces: Pieces, start: int, stop: int) -> tuple[Node, int]:
        """Cache tokens ``start:stop`` of a sequence whose first ``start`` tokens end at ``below``, which is locked.

        Returns the node where the sequence now ends and how many tokens of it, counted from 0, were cached already.
        """
        self._clock += 1
        node: Node | None = below
        while node is not None:
            node.last_access = self._clock
            node = node.parent
        node, matched = self._walk(below, pieces, start, stop)
        if matched < stop:
            rest = slice_pieces(pieces, matched, stop)
            leaf = Node(node, rest, stop - matched, self._clock)
            node.children[rest[0][0], rest[0][1]] = leaf
            self.evictable_tokens += leaf.tokens
            self._offer(leaf)
            node = leaf
        return node, matched

    def split(self, node: Node, tokens: int) -> Node:
        """Split a node after its first ``tokens`` tokens; returns the new upper part. Locks hold for both."""
        parent = node.parent
        assert parent is not None
        assert 0 < tokens < node.tokens
        upper = Node(parent, slice_pieces(node.pieces, 0, tokens), tokens, node.last_access)
        lower = slice_pieces(node.pieces, tokens, node.tokens)
        upper.locks = node.locks
        upper.children[lower[0][0], lower[0][1]] = node
        parent.children[node.pieces[0][0], node.pieces[0][1]] = upper
        node.parent, node.pieces, node.tokens = upper, lower, node.tokens - tokens
        return upper

    def lock(self, node: Node) -> None:
        """Keep a node and all above it from eviction."""
        while node.parent is not None:
            if node.locks == 0:
                self.evictable_tokens -= node.tokens
                self.locked_tokens += node.tokens
            node.locks += 1
            node = node.parent

    def unlock(self, node: Node) -> None:
        """Undo one ``lock``."""
        while node.parent is not None:
            node.locks -= 1
            if node.locks == 0:
                self.evictable_tokens += node.tokens
                self.locked_tokens -= node.tokens
                self._offer(node)
            node = node.parent

    def evict(self, tokens: int) -> int:
        """Drop least recently used leaves until ``tokens`` are free, or none is left; returns the tokens freed."""
        freed = 0
        while freed < tokens and self._leaves:
            last_access, _, node = heapq.heappop(self._leaves)
            parent = node.parent
            if parent is None or node.locks or node.children or node.last_access != last_access:
                continue
            freed += node.tokens
            del parent.children[node.pieces[0][0], node.pieces[0][1]]
            node.parent = None
            if parent.locks == 0:
                self._offer(parent)
        self.evictable_tokens -= freed
        return freed

    def _offer(self, node: Node) -> None:
        if not node.children and node.locks == 0:
            heapq.heappush(self._leaves, (node.last_access, next(self._sequence), node))

    def _walk(self, node: Node, pieces: Pieces, start: int, limit: int) -> tuple[Node, int]:
        """Follow tokens ``start:limit`` down from ``node``; returns the last node reached and the tokens up to there."""
        index, offset, position = _locate(pieces, start)
        while position < limit and index < len(pieces):
            segment, first, _ = pieces[index]
            child = node.children.get((segment, first + offset))
            if child is None:
                break
            child.last_access = self._clock
            self._offer(child)
            common = 0
            for child_segment, child_start, child_tokens in child.pieces:
                if index == len(pieces):
                    break
                segment, first, tokens = pieces[index]
                if segment != child_segment or first + offset != child_start:
                    break
                taken = min(child_tokens, tokens - offset, limit - position)
                common, position, offset = common + taken, position + taken, offset + taken
                if offset == tokens:
                    index, offset = index + 1, 0
                if taken < child_tokens:
                    break
            if common < child.tokens:
                return self.split(child, common), position
            node = child
        return node, position


def _locate(pieces: Pieces, position: int) -> tuple[int, int, int]:
    """Index of the piece that holds a position, the offset within it, and the position."""
    before = 0
    for index, (_, _, tokens) in enumerate(pieces):
        if position < before + tokens:
            return index, position - before, position
        before += tokens
    return len(pieces), 0, before
