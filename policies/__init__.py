"""How to choose: routing policies, queue orders, and the router that carries their decisions out."""

from .base import Policy, QueueOrder
from .errors import PolicyError
from .parameters import Parameter, Span
from .registry import (
    PolicyDescription,
    make_order,
    make_policy,
    policy_class,
    policy_descriptions,
    policy_parameters,
)
from .views import ClusterView, Decision, Hold, Reject, RequestView, Route, ServerView

__all__ = [
    "ClusterView",
    "Decision",
    "Hold",
    "Parameter",
    "Policy",
    "PolicyDescription",
    "PolicyError",
    "QueueOrder",
    "Reject",
    "RequestView",
    "Route",
    "ServerView",
    "Span",
    "make_order",
    "make_policy",
    "policy_class",
    "policy_descriptions",
    "policy_parameters",
]
