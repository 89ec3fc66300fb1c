"""A policy that is looked at while it decides."""

from collections.abc import Callable

from policies import ClusterView, Decision, Policy, RequestView, ServerView

__all__ = ["OnDecided", "WatchedPolicy"]


OnDecided = Callable[[RequestView, ClusterView, Decision], None]
"""Told of a decision and the view it was taken on, which is true only during the call."""


class WatchedPolicy(Policy):
    """Decides what the policy within decides, and tells ``on_decided``."""

    def __init__(self, policy: Policy, on_decided: OnDecided) -> None:
        super().__init__(policy.rng)
        self.policy = policy
        self._on_decided = on_decided
        # What a class says of itself, this instance says of the policy within.
        self.name, self.needs, self.order = policy.name, policy.needs, policy.order  # type: ignore[misc]

    def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
        """See ``Policy``."""
        decision = self.policy.choose(request, cluster)
        self._on_decided(request, cluster, decision)
        return decision

    def on_dispatch(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_dispatch(request, server, now)

    def on_first_token(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_first_token(request, server, now)

    def on_finish(self, request: RequestView, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_finish(request, server, now)

    def on_report(self, server: ServerView, now: float) -> None:
        """See ``Policy``."""
        self.policy.on_report(server, now)
