"""ServiceProfile: how one kind of server behaves. ``simroute calibrate`` writes it, the simulator reads it."""

import importlib.resources
import json
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from .errors import UserError, did_you_mean
from .launch import LaunchParameters, PositiveInt, SchedulerSettings
from .profile_launch import Launched, explain
from .profile_measurement import Host, Measurement
from .profile_parts import GpuMemory, Provenance, RequestOverheads, Residuals, Slowdown, StepCoefficients, ValidRange

__all__ = ["SCHEMA_VERSION", "ServiceProfile", "bundled_profiles", "read_document"]

SCHEMA_VERSION: Final = 1


class ServiceProfile(BaseModel):
    """One server's step times, request overheads, KV pool and scheduler settings, with where they come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1]
    name: str
    provenance: Provenance
    steps: StepCoefficients
    requests: RequestOverheads
    memory: GpuMemory | None
    """None: the pool's size was observed or set outright, and mem_fraction_static cannot be changed."""
    kv_tokens_capacity: PositiveInt
    context_length: PositiveInt
    """Longest prompt plus answer, tokens."""
    settings: SchedulerSettings
    valid_range: ValidRange
    residuals: Residuals
    measurement: Measurement | None = None
    """None: the step times were published, not measured by ``simroute calibrate``."""
    slowdowns: tuple[Slowdown, ...] = ()
    """When the server becomes slower or faster than its step times say, in order."""

    @property
    def model(self) -> str:
        """The model served."""
        return self.provenance.model

    @property
    def host(self) -> Host | None:
        """What the server's machine was like while it was measured; None where the profile does not tell."""
        return None if self.measurement is None else self.measurement.host

    @model_validator(mode="after")
    def _running_requests_fit(self) -> Self:
        running, half = self.settings.max_running_requests, self.kv_tokens_capacity // 2
        if running > half:
            raise ValueError(f"settings.max_running_requests {running} exceeds half of kv_tokens_capacity, {half}")
        return self

    @model_validator(mode="after")
    def _slowdowns_are_in_order(self) -> Self:
        times = [one.at_s for one in self.slowdowns]
        if any(later <= earlier for earlier, later in pairwise(times)):
            raise ValueError("slowdowns: at_s must rise")
        return self

    @classmethod
    def load(cls, name_or_path: str, base_dir: Path) -> Self:
        """Read a bundled profile by name, or a ``.json`` file relative to ``base_dir``. Raises UserError."""
        if name_or_path.endswith(".json"):
            return cls._read(base_dir / name_or_path)
        names = bundled_profiles()
        if name_or_path not in names:
            known = f"{', '.join(names)}{did_you_mean(name_or_path, names)}"
            raise UserError(f"unknown profile {name_or_path!r}: give the path of a .json file or one of {known}")
        return cls._read(_bundled_folder() / f"{name_or_path}.json")

    @classmethod
    def _read(cls, file: Path | Traversable) -> Self:
        document = read_document(file)
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise UserError(f"profile {file}: schema_version is {version!r}, but {SCHEMA_VERSION} is what can be read")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise UserError(explain(f"profile {file}", error)) from error

    def with_launch(self, launch: LaunchParameters) -> Self:
        """The profile of the same server launched with other parameters; what ``launch`` does not give stays.

        As in SGLang, the default of mem_fraction_static follows the settings, the KV pool follows it, and the default
        of max_running_requests follows the pool and context_length. Step times are left alone. Raises UserError.
        """
        current = Launched(self.memory, self.kv_tokens_capacity, self.context_length, self.settings)
        try:
            launched = current.relaunched(launch)
        except UserError as error:
            raise UserError(f"profile {self.name}: {error}") from error
        fields = ("memory", "kv_tokens_capacity", "context_length", "settings")
        return self.model_copy(update={name: getattr(launched, name) for name in fields})

    def with_model(self, model: str) -> Self:
        """The same server, serving another model's name (SGLang's --served-model-name)."""
        return self.model_copy(update={"provenance": self.provenance.model_copy(update={"model": model})})

    def to_json(self) -> str:
        """The document that ``load`` reads; equal profiles give equal text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read_document(file: Path | Traversable) -> object:
    """A profile's file as JSON. Raises UserError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"profile {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"profile {file}: not UTF-8 text: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"profile {file}: not JSON: {error}") from error


def bundled_profiles() -> list[str]:
    """Names of the profiles that ship with simroute, sorted."""
    return sorted(
        file.name.removesuffix(".json") for file in _bundled_folder().iterdir() if file.name.endswith(".json")
    )


def _bundled_folder() -> Traversable:
    return importlib.resources.files("scenarios") / "profiles"
