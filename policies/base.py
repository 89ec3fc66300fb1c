"""The two things a strategy may decide: where a request goes (Policy), and which one goes next (QueueOrder)."""

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from .parameters import Search
from .views import ClusterView, Decision, RequestView, ServerView

__all__ = ["Policy", "QueueOrder"]


class QueueOrder(ABC):
    """Orders the router's queue. Ties go to the earlier arrival."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = ""
    needs: frozenset[str] = frozenset()

    @abstractmethod
    def key(self, request: RequestView) -> float:
        """The request with the smallest key leaves the queue first; asked once, when it joins."""

    def left(self, request: RequestView, key: float) -> None:
        """The request, with this key, was the first and left the queue."""


class Policy(ABC):
    """Chooses a server for a request. Subclass it, implement ``choose``, and override the hooks you need.

    Constructor parameters after ``rng`` are the policy's parameters: keyword arguments with an annotation and a
    default, explained in ``parameters``; ``search`` says where `simroute tune` looks for them. Time comes as an
    argument, randomness from ``rng``; a policy that reads a clock or a global generator would decide differently in
    simulation and live.

    needs    RequestView and ServerView fields that must be there; a run whose scenario or servers cannot provide one
             is refused at the start. A policy whose parameters decide it sets it in its constructor.
    order    the QueueOrder this policy wants where the scenario names none
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, str]] = {}
    search: ClassVar[Mapping[str, Search]] = {}
    needs: frozenset[str] = frozenset()
    order: type[QueueOrder] | None = None

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    @abstractmethod
    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        """Route to one of ``cluster.servers``, hold the queue, or reject. Called once a request, and again after
        Hold."""

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        """The request was sent; called after ``choose``, also when a retry sends it again."""

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        """The first token reached the router."""

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        """The request left the server: finished, failed or cancelled."""

    def on_report(self, server: ServerView, now: float) -> None:
        """A new report of the server's arrived and is already in its view."""
