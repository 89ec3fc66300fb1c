"""Which waiting request goes next."""

from collections import OrderedDict

from .base import QueueOrder
from .views import RequestView

__all__ = ["QUEUE_ORDERS", "FirstComeFirstServed", "ShortestJobFirst"]


class FirstComeFirstServed(QueueOrder):
    """In order of arrival: no request waits longer than it must, and long ones hold up the short ones behind them."""

    name = "fcfs"
    summary = "in order of arrival"
    source = "every router"

    def key(self, request: RequestView) -> float:
        return request.arrived_at


class LastComeFirstServed(QueueOrder):
    """The newest first: under overload some requests are served in time instead of all of them late."""

    name = "lcfs"
    summary = "the latest arrival first"
    source = "Dynamo scheduling/policy.rs"

    def key(self, request: RequestView) -> float:
        return -request.arrived_at


class ShortestJobFirst(QueueOrder):
    """Fewest expected output tokens first: decode steps are what a request holds its place in the batch for.

    Long jobs can starve under sustained overload; that is the policy's known price.
    """

    name = "sjf"
    summary = "fewest expected output tokens first"
    source = "Schrage 1968"
    needs = frozenset({"expected_output_tokens"})

    def key(self, request: RequestView) -> float:
        assert request.expected_output_tokens is not None  # refused at the start: see needs
        return request.expected_output_tokens


class WeightedShortestProcessingTime(QueueOrder):
    """Smith's rule: the greatest ``(1 + priority) / prompt tokens`` first, which makes the least weighted sum of
    waiting times. Negative priorities count as 0."""

    name = "wspt"
    summary = "greatest (1 + priority) / prompt tokens first"
    source = "Smith 1956; Dynamo scheduling/policy.rs"

    def key(self, request: RequestView) -> float:
        return -(1 + max(request.priority, 0)) / max(request.prompt_tokens, 1)


class EarliestDeadlineFirst(QueueOrder):
    """The deadline for the whole answer: arrival and the SLO's bound on E2E. Requests of one SLO go in order of
    arrival."""

    name = "edf"
    summary = "earliest deadline for the whole answer first (arrival + the SLO's E2E bound)"
    source = "llm-d-router flowcontrol/ordering/edf"
    needs = frozenset({"slo"})

    def key(self, request: RequestView) -> float:
        return request.arrived_at + request.slo.get("e2e_s", float("inf"))


class SloDeadline(QueueOrder):
    """The deadline for the first token: arrival and the SLO's bound on TTFT."""

    name = "slo_deadline"
    summary = "earliest deadline for the first token first (arrival + the SLO's TTFT bound)"
    source = "llm-d-router flowcontrol/ordering/slodeadline"
    needs = frozenset({"slo"})

    def key(self, request: RequestView) -> float:
        return request.arrived_at + request.slo.get("ttft_s", float("inf"))


class Priority(QueueOrder):
    """The most urgent first, in order of arrival among equals; the less urgent can starve."""

    name = "priority"
    summary = "highest priority first"
    source = "Dynamo scheduling/policy.rs (strict_priority); SGLang's --enable-priority-scheduling"

    def key(self, request: RequestView) -> float:
        return -request.priority


class FairShare(QueueOrder):
    """Start-time fair queueing over sessions: each waits behind what it was given before, not behind what others asked
    for. A request's tag is the later of the queue's (that of the last one to leave) and its session's (its last tag
    and what that request cost: prompt tokens and twice the expected answer's); the smallest goes first. Requests
    without a session are one session.
    """

    name = "fair_share"
    summary = "sessions in proportion: the one that was given the fewest tokens first"
    source = "Goyal 1996 (SFQ); token costs of VTC, arXiv 2401.00588"
    needs = frozenset({"expected_output_tokens"})
    _output_weight = 2.0
    _most_sessions = 10_000

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: OrderedDict[int | None, float] = OrderedDict()

    def key(self, request: RequestView) -> float:
        start = max(self._now, self._ends.get(request.session_id, 0.0))
        assert request.expected_output_tokens is not None  # refused at the start: see needs
        cost = request.prompt_tokens + self._output_weight * request.expected_output_tokens
        self._ends[request.session_id] = start + cost
        self._ends.move_to_end(request.session_id)
        if len(self._ends) > self._most_sessions:
            self._ends.popitem(last=False)
        return start

    def left(self, request: RequestView, key: float) -> None:
        self._now = max(self._now, key)


QUEUE_ORDERS: dict[str, type[QueueOrder]] = {
    order.name: order
    for order in (
        FirstComeFirstServed,
        LastComeFirstServed,
        ShortestJobFirst,
        WeightedShortestProcessingTime,
        EarliestDeadlineFirst,
        SloDeadline,
        Priority,
        FairShare,
    )
}
