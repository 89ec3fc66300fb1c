"""Policies that leave the choice to another one, once they have seen to something."""

import random
from collections.abc import Mapping

from .base import Policy
from .views import RequestView, ServerView

__all__ = ["Wrapping"]


class Wrapping(Policy):
    """To be made into filters and admission rules. ``inner`` decides in the end, and is told whatever this is told."""

    def __init__(self, rng: random.Random, policy: str, params: Mapping[str, object]) -> None:
        super().__init__(rng)
        from .registry import make_policy  # The registry has to know this class's children first.

        self.inner = make_policy(policy, params, rng.getrandbits(32))
        self.needs = type(self).needs | self.inner.needs
        self.order = self.inner.order

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        self.inner.on_dispatch(request, server, now)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        self.inner.on_first_token(request, server, now)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        self.inner.on_finish(request, server, now)

    def on_report(self, server: ServerView, now: float) -> None:
        self.inner.on_report(server, now)
