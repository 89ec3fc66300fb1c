"""How to choose: routing policies, queue orders, and the router that carries their decisions out."""

from .base import Policy, QueueOrder
from .errors import PolicyError
from .registry import (
    PolicyDescription,
    PolicyParameter,
    make_order,
    make_policy,
    policy_class,
    policy_descriptions,
)
from .views import ClusterView, Decision, Hold, Reject, RequestView, Route, ServerView

__all__ = [
    "ClusterView",
    "Decision",
    "Hold",
    "Policy",
    "PolicyDescription",
    "PolicyError",
    "PolicyParameter",
    "QueueOrder",
    "Reject",
    "RequestView",
    "Route",
    "ServerView",
    "make_order",
    "make_policy",
    "policy_class",
    "policy_descriptions",
]
