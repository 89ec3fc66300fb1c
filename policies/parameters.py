"""What the constructors of policies and controllers declare, and classes from a user's own file: read in one place."""

import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .errors import PolicyError, did_you_mean

__all__ = ["Parameter", "Search", "Span", "check_parameters", "class_from_file", "described", "parameters_of"]

_ACCEPTED: dict[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "Mapping": (Mapping,),
    "Sequence": (list, tuple),
}
_Class = TypeVar("_Class")


@dataclass(frozen=True, slots=True)
class Span:
    """The values between which `simroute tune` looks for a number, both included; ``log``: evenly in its logarithm."""

    low: float
    high: float
    log: bool = False


Search = Span | tuple[str | bool | float, ...] | Mapping[str, Span]
"""Where to look for a parameter: a span of numbers, the values to choose from, or a span for each key of a mapping."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a policy or controller, as its constructor declares it; without ``search`` it is not tuned."""

    name: str
    type: str
    default: object
    meaning: str
    search: Search | None = None


def parameters_of(
    cls: type, meanings: Mapping[str, str], search: Mapping[str, Search], *, skip: int = 0
) -> dict[str, Parameter]:
    """The parameters of the constructor, by name, without its first ``skip``."""
    return {
        name: Parameter(
            name,
            getattr(parameter.annotation, "__name__", str(parameter.annotation)),
            parameter.default,
            meanings.get(name, ""),
            search.get(name),
        )
        for name, parameter in list(inspect.signature(cls).parameters.items())[skip:]
    }


def check_parameters(who: str, known: Mapping[str, Parameter], given: Mapping[str, object]) -> None:
    """Whether what is given is among what is known, and of its type. Raises PolicyError."""
    for name, value in given.items():
        if name not in known:
            has = f"{', '.join(known) or 'none'}{did_you_mean(name, known)}"
            raise PolicyError(f"{who} has no parameter {name!r}; it has: {has}")
        wanted = known[name].type
        accepted = _ACCEPTED.get(wanted)
        wrong_bool = isinstance(value, bool) and wanted != "bool"
        if accepted is not None and (wrong_bool or not isinstance(value, accepted)):
            raise PolicyError(f"{who}: {name} must be of type {wanted}, not {value!r}")


def described(cls: type) -> tuple[str, str, str]:
    """A docstring's definition, and what stands behind its ``Helps:`` and ``Hurts:``."""
    definition, _, rest = inspect.cleandoc(cls.__doc__ or "").partition("\nHelps: ")
    helps, _, hurts = rest.partition("\nHurts: ")
    return definition.strip(), helps.strip(), hurts.strip()


def class_from_file(name: str, base: type[_Class], unmade: Sequence[str]) -> type[_Class] | None:
    """The subclass of ``base`` that ``path/to/file.py:Class`` names, None where ``name`` is not of that form.

    ``unmade`` are the methods it must implement. Raises PolicyError.
    """
    text, separator, class_name = name.rpartition(":")
    if not separator or not text.endswith(".py"):
        return None
    path, kind = Path(text), base.__name__.lower()
    if not path.is_file():
        raise PolicyError(f"no {kind} file {path}")
    module_name = f"simroute_{kind}_{path.stem}"
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
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PolicyError(f"{path} has no {base.__name__} subclass named {class_name!r}")
    if inspect.isabstract(found):
        raise PolicyError(f"{path}:{class_name} does not implement {', '.join(f'{method}()' for method in unmade)}")
    if "name" not in vars(found):
        setattr(found, "name", class_name)  # noqa: B010
    return found
