"""From a policy's name to the policy."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from .aibrix import AibrixPrefixCache, LeastLatency, Throughput
from .base import Policy, QueueOrder
from .bucket import Bucket
from .cache_aware import CacheAware, CacheAwareSmallestTree
from .dynamo import DeviceAwareWeighted, DynamoKv
from .errors import PolicyError, did_you_mean
from .filters import LocalFirst, PrefixAffinity
from .hashing import ConsistentHashing, PrefixHash
from .latency_predicting import LatencyPredicting
from .least_loaded import LeastOutstandingTokens, LeastRequest, PowerOfTwo
from .llmd import LlmD
from .oblivious import Random, RoundRobin
from .parameter_aware import ParameterAware
from .parameters import Parameter, check_parameters, class_from_file, described, parameters_of
from .preble import PrebleE2
from .queue_orders import QUEUE_ORDERS
from .reported_load import LeastKv, LeastLoad, VllmScore
from .saturation import ConcurrencyGate, UtilizationGate
from .session_affinity import SessionAffinity
from .shortest_job_first import ShortestJobFirst
from .vtc import Vtc

__all__ = [
    "PolicyDescription",
    "make_order",
    "make_policy",
    "policy_class",
    "policy_descriptions",
    "policy_parameters",
]

_BUNDLED: tuple[type[Policy], ...] = (
    Random,
    RoundRobin,
    LeastRequest,
    PowerOfTwo,
    LeastOutstandingTokens,
    ShortestJobFirst,
    ParameterAware,
    VllmScore,
    LeastLoad,
    LeastKv,
    CacheAware,
    CacheAwareSmallestTree,
    PrefixHash,
    ConsistentHashing,
    SessionAffinity,
    Bucket,
    LlmD,
    PrefixAffinity,
    LatencyPredicting,
    DynamoKv,
    DeviceAwareWeighted,
    AibrixPrefixCache,
    Throughput,
    LeastLatency,
    PrebleE2,
    Vtc,
    UtilizationGate,
    ConcurrencyGate,
    LocalFirst,
)
_POLICIES: dict[str, type[Policy]] = {policy.name: policy for policy in _BUNDLED}


@dataclass(frozen=True, slots=True)
class PolicyDescription:
    """What `simroute policies` tells of a policy. ``definition``, ``helps`` and ``hurts`` are its docstring's parts."""

    name: str
    summary: str
    source: str
    definition: str
    helps: str
    hurts: str
    parameters: tuple[Parameter, ...]
    needs: tuple[str, ...]
    order: str


def policy_descriptions() -> list[PolicyDescription]:
    """The bundled policies, in the order of the registry."""
    return [_describe(policy) for policy in _BUNDLED]


def policy_class(name: str) -> type[Policy]:
    """The class behind a registered name or a ``path/to/file.py:Class``. Raises PolicyError."""
    if name in _POLICIES:
        return _POLICIES[name]
    found = class_from_file(name, Policy, ["choose"])  # type: ignore[type-abstract]
    if found is not None:
        return found
    known = f"{', '.join(_POLICIES)}; or path/to/file.py:Class"
    raise PolicyError(f"unknown policy {name!r}; known: {known}{did_you_mean(name, _POLICIES)}")


def make_policy(name: str, params: Mapping[str, object], seed: int) -> Policy:
    """Build a policy by name or file, with its own random stream. Raises PolicyError."""
    cls = policy_class(name)
    check_parameters(f"policy {name}", _parameters(cls), params)
    policy = cls(random.Random(seed), **params)
    if not hasattr(policy, "rng"):
        raise PolicyError(f"policy {name}: __init__ must call super().__init__(rng)")
    return policy


def policy_parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a policy, by name. Raises PolicyError."""
    return _parameters(policy_class(name))


def make_order(name: str) -> QueueOrder:
    """Build a queue order by name. Raises PolicyError."""
    if name not in QUEUE_ORDERS:
        hint = did_you_mean(name, QUEUE_ORDERS)
        raise PolicyError(f"unknown queue order {name!r}; known: {', '.join(QUEUE_ORDERS)}{hint}")
    return QUEUE_ORDERS[name]()


def _describe(policy: type[Policy]) -> PolicyDescription:
    parameters = tuple(_parameters(policy).values())
    order = policy.order.name if policy.order else "fcfs"
    needs = tuple(sorted(policy(random.Random(0)).needs))
    return PolicyDescription(policy.name, policy.summary, policy.source, *described(policy), parameters, needs, order)


def _parameters(policy: type[Policy]) -> dict[str, Parameter]:
    return parameters_of(policy, policy.parameters, policy.search, skip=1)
