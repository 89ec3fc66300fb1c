"""The prefix cache: SGLang's radix tree (``mem_cache/radix_cache.py``), over pieces instead of tokens.

The tree knows nothing of the pool; its nodes hold KV tokens that are either locked by a request or evictable.
"""

import heapq
from collections import deque

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

    def __lt__(self, other: "Node") -> bool:
        """Of equally old entries of the eviction heap at most one is an evictable leaf, so any order will do."""
        return False


class RadixCache:
    """Longest-prefix matching, locking, and eviction of the least recently used leaf.

    ``evictable_tokens`` are those in unlocked nodes; ``locked_tokens`` the others.

    Content that no other request has can never be matched, except by its own request after a retraction. Until then it
    needs no nodes: ``hold`` and ``retire`` only count it, and eviction takes it in its turn. What is evicted when is
    the same as with nodes, at a fraction of the cost.
    """

    def __init__(self) -> None:
        self.root = Node(None, [], 0, 0)
        self.root.locks = 1
        self.evictable_tokens = 0
        self.locked_tokens = 0
        self._clock = 0
        # Unlocked leaves by last access. An entry is stale, and skipped, once its node was touched, locked, extended or
        # removed; whatever makes a node evictable again pushes a new one.
        self._leaves: list[tuple[int, Node]] = []
        # Runs without nodes by last access: an answer before its prompt, as leaf before parent.
        self._retired: deque[tuple[int, int]] = deque()

    def hold(self, tokens: int) -> int:
        """Take over the prompt of a request as locked, without a node; returns the time of it."""
        self._clock += 1
        self.locked_tokens += tokens
        return self._clock

    def retire(self, held: int, prompt: int, answer: int) -> None:
        """A request whose ``held`` tokens were taken over is complete: ``prompt`` and ``answer`` stay, evictable."""
        self._clock += 1
        self.locked_tokens -= held
        self.evictable_tokens += prompt + answer
        self._retired.append((self._clock, answer))
        self._retired.append((self._clock, prompt))

    def settle(self, pieces: Pieces, tokens: int, stamp: int) -> None:
        """A request leaves early: what was held of it becomes a node as old as its ``stamp``, to be matched again."""
        leaf = self.insert(self.root, pieces, tokens)[0]
        self.locked_tokens -= tokens
        leaf.last_access = stamp
        heapq.heappush(self._leaves, (stamp, leaf))

    def match(self, pieces: Pieces, limit: int) -> tuple[Node, int]:
        """The deepest node on the cached prefix of at most ``limit`` tokens, and that prefix's tokens.

        Touches the path, and splits the last node where the match ends inside it.
        """
        self._clock += 1
        return self._walk(self.root, pieces, limit)

    def insert(self, below: Node, pieces: Pieces, tokens: int) -> tuple[Node, int]:
        """Cache the first ``tokens`` tokens of ``pieces`` below a node that is locked, or the root.

        Returns the node where they now end, and how many of them were cached already.
        """
        self._clock = clock = self._clock + 1
        node, matched = below, 0
        above: Node | None = below
        while above is not None:
            above.last_access = clock
            above = above.parent
        if below.children:
            node, matched = self._walk(below, pieces, tokens)
            if matched == tokens:
                return node, matched
        rest = slice_pieces(pieces, matched, tokens)
        leaf = Node(node, rest, tokens - matched, clock)
        segment, start, _ = rest[0]
        node.children[segment, start] = leaf
        self.evictable_tokens += leaf.tokens
        heapq.heappush(self._leaves, (clock, leaf))
        return leaf, matched

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
                if not node.children:
                    heapq.heappush(self._leaves, (node.last_access, node))
            node = node.parent

    def evict(self, tokens: int) -> int:
        """Drop least recently used leaves until ``tokens`` are free, or none is left; returns the tokens freed."""
        freed, leaves, retired = 0, self._leaves, self._retired
        while freed < tokens and (leaves or retired):
            if retired and (not leaves or retired[0][0] < leaves[0][0]):
                freed += retired.popleft()[1]
                continue
            last_access, node = heapq.heappop(leaves)
            parent = node.parent
            if node.locks or node.last_access != last_access or node.children or parent is None:
                continue
            freed += node.tokens
            segment, start, _ = node.pieces[0]
            del parent.children[segment, start]
            node.parent = None
            if not parent.children and not parent.locks:
                heapq.heappush(leaves, (parent.last_access, parent))
        self.evictable_tokens -= freed
        return freed

    def _walk(self, node: Node, pieces: Pieces, limit: int) -> tuple[Node, int]:
        """Follow ``pieces`` down from ``node`` for at most ``limit`` tokens; the last node reached and the tokens."""
        matched = index = offset = 0
        while matched < limit and index < len(pieces):
            segment, first, _ = pieces[index]
            child = node.children.get((segment, first + offset))
            if child is None:
                break
            child.last_access = self._clock
            if child.locks == 0 and not child.children:
                heapq.heappush(self._leaves, (self._clock, child))
            common = 0
            for child_segment, child_start, child_tokens in child.pieces:
                if index == len(pieces):
                    break
                segment, first, tokens = pieces[index]
                if segment != child_segment or first + offset != child_start:
                    break
                taken = min(child_tokens, tokens - offset, limit - matched)
                common, matched, offset = common + taken, matched + taken, offset + taken
                if offset == tokens:
                    index, offset = index + 1, 0
                if taken < child_tokens:
                    break
            if common < child.tokens:
                return self._split(child, common), matched
            node = child
        return node, matched

    def _split(self, node: Node, tokens: int) -> Node:
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
