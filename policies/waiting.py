"""The router's queue."""

import heapq

from .base import QueueOrder
from .ledger import InFlight

__all__ = ["WaitingQueue"]


class WaitingQueue:
    """Waiting requests by the order's key, ties by arrival. Requests that left are dropped when they come up:
    ``waiting`` may still hold them, so it is empty only if the queue is, but not the other way round."""

    def __init__(self, order: QueueOrder) -> None:
        self._order = order
        self.waiting: list[tuple[float, int, InFlight]] = []
        self._gone: set[int] = set()
        self._sequence = 0
        self._front = 0

    def __len__(self) -> int:
        return len(self.waiting) - len(self._gone)

    def push(self, entry: InFlight) -> None:
        """Join by the order."""
        self._sequence += 1
        heapq.heappush(self.waiting, (self._order.key(entry.request), self._sequence, entry))

    def push_front(self, entry: InFlight) -> None:
        """Join before all others, the last one pushed first: a retry has waited its turn already."""
        self._front -= 1
        heapq.heappush(self.waiting, (float("-inf"), self._front, entry))

    def peek(self) -> InFlight | None:
        """The next request, or None."""
        while self.waiting:
            entry = self.waiting[0][2]
            if entry.request.request_id not in self._gone:
                return entry
            self._gone.discard(entry.request.request_id)
            heapq.heappop(self.waiting)
        return None

    def entries(self) -> list[InFlight]:
        """All that wait, the next first."""
        return [entry for _, _, entry in sorted(self.waiting) if entry.request.request_id not in self._gone]

    def pop(self) -> None:
        """Remove what ``peek`` returned."""
        key, _, entry = heapq.heappop(self.waiting)
        self._order.left(entry.request, key)

    def remove(self, entry: InFlight) -> None:
        """A waiting request left (its client went away)."""
        self._gone.add(entry.request.request_id)
