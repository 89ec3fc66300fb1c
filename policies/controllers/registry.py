"""From a controller's name to the controller."""

from collections.abc import Mapping
from dataclasses import dataclass

from policies.errors import PolicyError, did_you_mean
from policies.ledger import ServerReport
from policies.parameters import Parameter, check_parameters, class_from_file, described, parameters_of

from .aimd_ttft import AimdTtft
from .base import Controller
from .fixed_schedule import FixedSchedule
from .kv_headroom import KvHeadroom

__all__ = [
    "ControllerDescription",
    "check_controller_needs",
    "controller_class",
    "controller_descriptions",
    "controller_parameters",
    "make_controller",
]

_BUNDLED: tuple[type[Controller], ...] = (FixedSchedule, AimdTtft, KvHeadroom)
_CONTROLLERS: dict[str, type[Controller]] = {controller.name: controller for controller in _BUNDLED}


@dataclass(frozen=True, slots=True)
class ControllerDescription:
    """What the lists tell of a controller. ``definition``, ``helps`` and ``hurts`` are its docstring's parts."""

    name: str
    summary: str
    source: str
    definition: str
    helps: str
    hurts: str
    parameters: tuple[Parameter, ...]
    needs: tuple[str, ...]


def controller_descriptions() -> list[ControllerDescription]:
    """The bundled controllers, in the order of the registry."""
    return [
        ControllerDescription(
            cls.name,
            cls.summary,
            cls.source,
            *described(cls),
            tuple(_parameters(cls).values()),
            tuple(sorted(cls.needs)),
        )
        for cls in _BUNDLED
    ]


def controller_class(name: str) -> type[Controller]:
    """The class behind a registered name or a ``path/to/file.py:Class``. Raises PolicyError."""
    if name in _CONTROLLERS:
        return _CONTROLLERS[name]
    found = class_from_file(name, Controller, ["decide"])  # type: ignore[type-abstract]
    if found is not None:
        return found
    known = f"{', '.join(_CONTROLLERS)}; or path/to/file.py:Class"
    raise PolicyError(f"unknown controller {name!r}; known: {known}{did_you_mean(name, _CONTROLLERS)}")


def controller_parameters(name: str) -> dict[str, Parameter]:
    """The parameters of a controller, by name. Raises PolicyError."""
    return _parameters(controller_class(name))


def make_controller(name: str, params: Mapping[str, object]) -> Controller:
    """Build a controller by name or file. Raises PolicyError."""
    cls = controller_class(name)
    check_parameters(f"controller {name}", _parameters(cls), params)
    return cls(**params)


def check_controller_needs(controller: Controller, missing: frozenset[str] | set[str]) -> None:
    """``missing``: what the servers of this run do not report. Raises PolicyError."""
    if unknown := controller.needs - frozenset(ServerReport._fields):
        raise PolicyError(f"controller {controller.name} needs {', '.join(sorted(unknown))}, which no server reports")
    if absent := controller.needs & missing:
        raise PolicyError(
            f"controller {controller.name} needs {', '.join(sorted(absent))}, which these servers do not report"
        )


def _parameters(cls: type[Controller]) -> dict[str, Parameter]:
    return parameters_of(cls, cls.parameters, cls.search)
