"""Which waiting request goes next."""

from .base import QueueOrder
from .views import RequestView

__all__ = ["QUEUE_ORDERS", "FirstComeFirstServed", "ShortestJobFirst"]


class FirstComeFirstServed(QueueOrder):
    """In order of arrival."""

    name = "fcfs"
    summary = "in order of arrival"

    def key(self, request: RequestView) -> float:
        return request.arrived_at


class ShortestJobFirst(QueueOrder):
    """Fewest expected output tokens first: decode steps are what a request holds its place in the batch for.

    Long jobs can starve under sustained overload; that is the policy's known price.
    """

    name = "sjf"
    summary = "fewest expected output tokens first"
    needs = frozenset({"expected_output_tokens"})

    def key(self, request: RequestView) -> float:
        assert request.expected_output_tokens is not None  # refused at the start: see needs
        return request.expected_output_tokens


QUEUE_ORDERS: dict[str, type[QueueOrder]] = {order.name: order for order in (FirstComeFirstServed, ShortestJobFirst)}
