"""Ends a run that would not end: its policy holds the router's queue, and nothing will make it choose again."""

from policies import PolicyError
from policies.router import Router

__all__ = ["HoldWatch"]

_MOST_REPORTS = 1_000
"""After so many reports of idle servers a policy that still holds its queue will hold it for ever."""


class HoldWatch:
    """A policy that holds the queue is asked again when something happens. ``report_interval_s``: of servers that
    report; None where none does."""

    def __init__(self, router: Router, report_interval_s: float | None) -> None:
        self._router = router
        self._patience_s = 0.0 if report_interval_s is None else _MOST_REPORTS * report_interval_s
        self._held_since: float | None = None

    def check(self, now: float, *, more_to_come: bool) -> None:
        """``more_to_come``: something else than reports will still happen. Raises PolicyError."""
        queued = self._router.queued_requests
        if not queued or more_to_come:
            self._held_since = None
            return
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since >= self._patience_s:
            raise PolicyError(
                f"policy {self._router.policy.name} holds {queued} requests at {now:.3f} s, and nothing is left to "
                f"happen that would make it choose again"
            )
