"""The clients' side: when each request is sent to the router."""

from collections import deque
from collections.abc import Callable

from .clock import Timer
from .workload import NONE, Workload

__all__ = ["Clients"]


class Clients:
    """Sends requests at their times, keeps the clients' own limit, and lets a session's turns wait for the answers.

    ``max_concurrency`` is a semaphore as in sglang.bench_serving: a request that is due while so many are in flight
    waits outside, and arrives at the router only when one of them ends. ``send`` is called with the request's index.
    """

    def __init__(self, clock: Timer, workload: Workload, send: Callable[[int, float], None]) -> None:
        self._clock = clock
        self._send = send
        self._limit = workload.max_concurrency
        self._offer = send if self._limit is None else self._send_within_limit
        self._due_next = self._on_due
        self._in_flight = 0
        self._releasing = False
        self._due: deque[int] = deque()
        self._next_turn = None if (workload.next_turn == NONE).all() else workload.next_turn.tolist()
        self._think_s = workload.think_s
        first_turns = (workload.arrival_s == workload.arrival_s).nonzero()[0]
        # Times and indices of the first turns, the earliest last.
        self._times: list[float] = workload.arrival_s[first_turns][::-1].tolist()
        self._ids: list[int] = first_turns[::-1].tolist()
        self._turns_due = 0

    @property
    def done_sending(self) -> bool:
        """Whether no request is sent any more unless one that is under way ends."""
        return not self._times and not self._turns_due

    def start(self) -> None:
        """Schedule the first arrival; each schedules the next."""
        if self._times:
            self._clock.at(self._times[-1], self._on_due)

    def answered(self, request_id: int, now: float) -> None:
        """A request ended well: its session's next turn follows after the time to think."""
        if self._next_turn is not None and (turn := self._next_turn[request_id]) != NONE:
            self._turns_due += 1
            self._clock.at(now + float(self._think_s[turn]), self._on_turn_due, turn)
        if self._limit is not None:
            self._release(now, self._limit)

    def gave_up(self, request_id: int, now: float) -> list[int]:
        """A request ended without an answer: returns the turns that are never sent for that."""
        unsent = []
        while self._next_turn is not None and (request_id := self._next_turn[request_id]) != NONE:
            unsent.append(request_id)
        if self._limit is not None:
            self._release(now, self._limit)
        return unsent

    def _on_due(self, now: float, _: None) -> None:
        times = self._times
        times.pop()
        request_id = self._ids.pop()
        if times:
            self._clock.at(times[-1], self._due_next)
        offer = self._offer
        offer(request_id, now)

    def _on_turn_due(self, now: float, turn: int) -> None:
        self._turns_due -= 1
        self._offer(turn, now)

    def _send_within_limit(self, request_id: int, now: float) -> None:
        assert self._limit is not None
        if self._in_flight >= self._limit:
            self._due.append(request_id)
        else:
            self._in_flight += 1
            self._send(request_id, now)

    def _release(self, now: float, limit: int) -> None:
        self._in_flight -= 1
        if self._releasing:
            # The request that the loop below just sent was rejected at once: the loop goes on with the next.
            return
        self._releasing = True
        while self._due and self._in_flight < limit:
            self._in_flight += 1
            self._send(self._due.popleft(), now)
        self._releasing = False
