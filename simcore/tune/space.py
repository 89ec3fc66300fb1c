"""What is searched: the parameters that a policy and a controller declare, and a setting of them as specs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from policies import Parameter, Span, policy_parameters
from policies.controllers import controller_parameters
from simcore.errors import UserError
from simcore.scenario import ControllerSpec, PolicySpec

__all__ = ["Dimension", "Setting", "Space", "Values", "space_of"]

Values = Mapping[str, Any]
"""A value by the name of each dimension."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One number or choice. ``name`` is shown; ``parameter`` is what it belongs to, ``key`` its place in a mapping."""

    name: str
    parameter: str
    key: str | None
    of_controller: bool
    where: Span | tuple[str | bool | float, ...]
    whole: bool
    default: Any

    @property
    def holds_default(self) -> bool:
        """Whether the default is among what is searched: a user's own class may look elsewhere."""
        if isinstance(self.where, Span):
            return bool(self.where.low <= self.default <= self.where.high)
        return self.default in self.where

    def value(self, drawn: Any) -> Any:
        """What was drawn, with as many digits as are worth writing down."""
        if self.whole or not isinstance(self.where, Span):
            return drawn
        return min(max(float(f"{drawn:.4g}"), self.where.low), self.where.high)


@dataclass(frozen=True, slots=True)
class Setting:
    """A policy and a controller with their parameters."""

    policy: PolicySpec
    controller: ControllerSpec | None


@dataclass(frozen=True, slots=True)
class Space:
    """The dimensions around what is given and stays."""

    given: Setting
    dimensions: tuple[Dimension, ...]

    def defaults(self) -> dict[str, Any]:
        """The default of each dimension."""
        return {dimension.name: dimension.default for dimension in self.dimensions}

    def setting(self, values: Values) -> Setting:
        """With these values in place."""
        policy, controller = self.given.policy, self.given.controller
        params = self._merged(policy.params, values, of_controller=False)
        policy = policy.model_copy(update={"params": params})
        if controller is not None:
            params = self._merged(controller.params, values, of_controller=True)
            controller = controller.model_copy(update={"params": params})
        return Setting(policy, controller)

    def _merged(self, params: Mapping[str, Any], values: Values, *, of_controller: bool) -> dict[str, Any]:
        merged = dict(params)
        for dimension in self.dimensions:
            if dimension.of_controller is not of_controller:
                continue
            value = values[dimension.name]
            if dimension.key is None:
                merged[dimension.parameter] = value
            else:
                merged[dimension.parameter] = {**merged.get(dimension.parameter, {}), dimension.key: value}
        return merged


def space_of(policy: PolicySpec, controller: ControllerSpec | None, *, tunes_controller: bool) -> Space:
    """All that is declared and not given. Raises PolicyError for a name that is not known, UserError where nothing is
    left to search."""
    dimensions = _dimensions(policy_parameters(policy.name).values(), policy.params, of_controller=False)
    if tunes_controller and controller is not None:
        known = controller_parameters(controller.name).values()
        dimensions += _dimensions(known, controller.params, of_controller=True)
    if not dimensions:
        who = f"policy {policy.label}"
        if tunes_controller and controller is not None:
            who += f" and controller {controller.label}"
        why = "every parameter that could be searched is given" if policy.params else "no parameter says where to look"
        raise UserError(f"{who}: there is nothing to tune: {why}")
    return Space(Setting(policy, controller), tuple(dimensions))


def _dimensions(known: Iterable[Parameter], given: Mapping[str, Any], *, of_controller: bool) -> list[Dimension]:
    dimensions = []
    for parameter in known:
        if parameter.search is None or parameter.name in given:
            continue
        prefix = "controller." if of_controller else ""
        if isinstance(parameter.search, Mapping):
            defaults = parameter.default
            assert isinstance(defaults, Mapping)
            dimensions += [
                Dimension(
                    f"{prefix}{parameter.name}.{key}",
                    parameter.name,
                    key,
                    of_controller,
                    span,
                    whole=False,
                    default=defaults[key],
                )
                for key, span in parameter.search.items()
            ]
            continue
        whole = parameter.type == "int"
        name, default = f"{prefix}{parameter.name}", parameter.default
        dimensions.append(Dimension(name, parameter.name, None, of_controller, parameter.search, whole, default))
    return dimensions
