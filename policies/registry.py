"""From a policy's name to the policy."""

import importlib.util
import inspect
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from .preble import PrebleE2
from .queue_orders import QUEUE_ORDERS
from .reported_load import LeastKv, LeastLoad, VllmScore
from .saturation import ConcurrencyGate, UtilizationGate
from .session_affinity import SessionAffinity
from .shortest_job_first import ShortestJobFirst
from .vtc import Vtc

__all__ = ["PolicyDescription", "PolicyParameter", "make_order", "make_policy", "policy_class", "policy_descriptions"]

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
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "Mapping": (Mapping,),
}


@dataclass(frozen=True, slots=True)
class PolicyParameter:
    """One parameter of a policy, as its constructor declares it."""

    name: str
    type: str
    default: object
    meaning: str


@dataclass(frozen=True, slots=True)
class PolicyDescription:
    """What `simroute policies` tells of a policy. ``definition``, ``helps`` and ``hurts`` are its docstring's parts."""

    name: str
    summary: str
    source: str
    definition: str
    helps: str
    hurts: str
    parameters: tuple[PolicyParameter, ...]
    needs: tuple[str, ...]
    order: str


def policy_descriptions() -> list[PolicyDescription]:
    """The bundled policies, in the order of the registry."""
    return [_describe(policy) for policy in _BUNDLED]


def policy_class(name: str) -> type[Policy]:
    """The class behind a registered name or a ``path/to/file.py:Class``. Raises PolicyError."""
    if name in _POLICIES:
        return _POLICIES[name]
    path, separator, class_name = name.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_file(Path(path), class_name)
    known = f"{', '.join(_POLICIES)}; or path/to/file.py:Class"
    raise PolicyError(f"unknown policy {name!r}; known: {known}{did_you_mean(name, _POLICIES)}")


def make_policy(name: str, params: Mapping[str, object], seed: int) -> Policy:
    """Build a policy by name or file, with its own random stream. Raises PolicyError."""
    cls = policy_class(name)
    known = _parameters(cls)
    for given, value in params.items():
        if given not in known:
            has = f"{', '.join(known) or 'none'}{did_you_mean(given, known)}"
            raise PolicyError(f"policy {name} has no parameter {given!r}; it has: {has}")
        _check_type(name, known[given], value)
    policy = cls(random.Random(seed), **params)
    if not hasattr(policy, "rng"):
        raise PolicyError(f"policy {name}: __init__ must call super().__init__(rng)")
    return policy


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
    told = _told(inspect.cleandoc(policy.__doc__ or ""))
    return PolicyDescription(policy.name, policy.summary, policy.source, *told, parameters, needs, order)


def _told(text: str) -> tuple[str, str, str]:
    """A docstring's definition, and what stands behind its ``Helps:`` and ``Hurts:``."""
    definition, _, rest = text.partition("\nHelps: ")
    helps, _, hurts = rest.partition("\nHurts: ")
    return definition.strip(), helps.strip(), hurts.strip()


def _parameters(policy: type[Policy]) -> dict[str, PolicyParameter]:
    signature = inspect.signature(policy)
    return {
        name: PolicyParameter(
            name,
            getattr(parameter.annotation, "__name__", str(parameter.annotation)),
            parameter.default,
            policy.parameters.get(name, ""),
        )
        for name, parameter in list(signature.parameters.items())[1:]
    }


def _check_type(policy: str, parameter: PolicyParameter, value: object) -> None:
    accepted = _ACCEPTED.get(parameter.type)
    wrong_bool = isinstance(value, bool) and parameter.type != "bool"
    if accepted is not None and (wrong_bool or not isinstance(value, accepted)):
        raise PolicyError(f"policy {policy}: {parameter.name} must be of type {parameter.type}, not {value!r}")


def _from_file(path: Path, class_name: str) -> type[Policy]:
    if not path.is_file():
        raise PolicyError(f"no policy file {path}")
    module_name = f"simroute_policy_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PolicyError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PolicyError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Policy)):
        raise PolicyError(f"{path} has no Policy subclass named {class_name!r}")
    if inspect.isabstract(found):
        raise PolicyError(f"{path}:{class_name} does not implement choose()")
    if "name" not in vars(found):
        found.name = class_name
    return found
