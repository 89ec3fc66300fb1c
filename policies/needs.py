"""Whether a run can give a policy what it decides on: asked once, before the run, instead of falling back in it."""

from collections.abc import Set

from .base import Policy, QueueOrder
from .errors import PolicyError
from .ledger import ServerReport
from .views import RequestView

__all__ = ["check_needs", "needs_reports"]

_REPORTED = frozenset(ServerReport._fields)
_KNOWN = _REPORTED | frozenset(RequestView._fields)


def needs_reports(policy: Policy) -> bool:
    """Whether the policy decides on what servers report."""
    return bool(policy.needs & _REPORTED)


def check_needs(policy: Policy, order: QueueOrder, missing: Set[str]) -> None:
    """``missing``: the RequestView and ServerView fields that this run cannot provide. Raises PolicyError."""
    for who, needs in ((f"policy {policy.name}", policy.needs), (f"queue order {order.name}", order.needs)):
        if unknown := needs - _KNOWN:
            raise PolicyError(f"{who} needs {', '.join(sorted(unknown))}, which no request or server has")
        if absent := needs & missing:
            raise PolicyError(f"{who} needs {', '.join(sorted(absent))}, which this run does not provide")
