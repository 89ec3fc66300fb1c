"""What changes servers' caps while they serve, from what a router sees of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from policies.parameters import Search
from policies.views import RequestView, ServerView

__all__ = ["Cap", "Controller"]


class Cap(NamedTuple):
    """From now on the router has at most so many requests in flight on the server; None for no cap."""

    server_id: str
    max_running_requests: int | None


class Controller(ABC):
    """Decides the caps ``max_running_requests`` of the servers. Subclass it, implement ``decide``, and override the
    hooks you need.

    The constructor's parameters are the controller's: keyword arguments with an annotation and a default, explained in
    ``parameters``; ``search`` says where `simroute tune` looks for them. Time comes as an argument: a controller that
    reads a clock would decide differently in simulation and live. What it is not told, no router sees.

    needs       ServerView fields that servers must report; a run whose servers do not is refused at the start, and
                reports are polled only where some are needed
    interval_s  ``decide`` is asked at the start of the run and then so often; None: never of itself
    moments     times since the start at which it is asked, too
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, str]] = {}
    search: ClassVar[Mapping[str, Search]] = {}
    needs: frozenset[str] = frozenset()
    interval_s: float | None = None
    moments: tuple[float, ...] = ()

    @property
    def sees_first_tokens(self) -> bool:
        """Whether it has a use for them: they cost a simulation something."""
        return type(self).on_first_token is not Controller.on_first_token

    @abstractmethod
    def decide(self, now: float, servers: Sequence[ServerView]) -> Sequence[Cap]:
        """The caps that shall change; of all ``servers``, those that are down as well."""

    def check(self, server_ids: Sequence[str]) -> None:
        """Asked once, before the run. Raises PolicyError where the controller does not fit the servers."""

    def on_first_token(self, request: RequestView, server: ServerView, dispatched_at: float, now: float) -> None:
        """The first token of a request that was sent at ``dispatched_at`` reached the router."""

    def on_finish(self, request: RequestView, server: ServerView, dispatched_at: float, now: float) -> None:
        """A request that was sent at ``dispatched_at`` left the server: finished, failed or cancelled."""

    def on_report(self, server: ServerView, now: float) -> None:
        """A new report of the server's arrived and is already in its view."""
