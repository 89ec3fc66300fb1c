"""Controllers: what changes the servers' caps while they serve, the same class simulated and live."""

from .base import Cap, Controller
from .controlled import ControlledRouter
from .fixed_schedule import FixedSchedule
from .registry import (
    ControllerDescription,
    check_controller_needs,
    controller_class,
    controller_descriptions,
    controller_parameters,
    make_controller,
)

__all__ = [
    "Cap",
    "ControlledRouter",
    "Controller",
    "ControllerDescription",
    "FixedSchedule",
    "check_controller_needs",
    "controller_class",
    "controller_descriptions",
    "controller_parameters",
    "make_controller",
]
