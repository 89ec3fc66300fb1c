"""RemoteProfile: how somebody else's API behaves, and what it costs. And the one way to load a profile of any kind."""

import importlib.resources
import json
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError, did_you_mean
from .launch import LaunchParameters, PositiveFloat, PositiveInt, Seconds
from .profile import ServiceProfile, bundled_profiles, read_document
from .profile_launch import explain

__all__ = ["AnyProfile", "RemotePrice", "RemoteProfile", "bundled_apis", "load_profile", "own_profiles"]

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_KIND = "remote_api"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RemotePrice(_Part):
    """Per million tokens, in whatever currency all prices of a scenario are in."""

    input_per_million: NonNegative
    output_per_million: NonNegative


class RemoteProfile(_Part):
    """A remote API as its clients see it: no batch, no queue and no cache, but a delay, a speed, a price and limits."""

    schema_version: Literal[1]
    kind: Literal["remote_api"]
    name: str
    model: str
    """As requests name it."""
    source: str
    """Where the numbers come from."""
    first_token_s: Seconds
    """From the router's dispatch to the first token, the network's part included; the mean where it varies."""
    first_token_cv: NonNegative = 0.0
    """Coefficient of variation of a lognormal first_token_s; 0: always the same."""
    output_tps: PositiveFloat
    """Tokens a second of one answer, after its first."""
    price: RemotePrice
    requests_per_minute: PositiveFloat | None = None
    """None: no such limit."""
    tokens_per_minute: PositiveFloat | None = None
    """Of prompts and of the answers' limits (max_new_tokens), as a request comes; None: no such limit."""
    max_running_requests: PositiveInt | None = None
    """Most requests that are answered at once; None: no such limit."""
    context_length: PositiveInt = 131_072
    """Longest prompt plus answer, tokens."""

    @classmethod
    def from_document(cls, document: object, where: str) -> Self:
        """Check what was read. Raises UserError."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise UserError(explain(f"profile {where}", error)) from error

    def with_launch(self, launch: LaunchParameters) -> Self:
        """Itself: nobody launches a remote API. Raises UserError where launch parameters are given."""
        if given := sorted(launch.model_fields_set):
            raise UserError(f"profile {self.name}: a remote API takes no launch parameters, such as {given[0]}")
        return self

    def with_model(self, model: str) -> Self:
        """The same API under another model's name."""
        return self.model_copy(update={"model": model})

    def to_json(self) -> str:
        """The document that ``load_profile`` reads; equal profiles give equal text."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


AnyProfile: TypeAlias = ServiceProfile | RemoteProfile


def load_profile(name_or_path: str, base_dir: Path) -> AnyProfile:
    """A bundled profile or API by name, or a ``.json`` file of either kind, relative to ``base_dir``.

    Raises UserError.
    """
    if name_or_path in bundled_apis():
        file: Path | Traversable = _folder() / f"{name_or_path}.json"
    elif name_or_path.endswith(".json"):
        file = base_dir / name_or_path
    else:
        names = [*bundled_profiles(), *bundled_apis()]
        if name_or_path not in names:
            known = f"{', '.join(names)}{did_you_mean(name_or_path, names)}"
            raise UserError(f"unknown profile {name_or_path!r}: give the path of a .json file or one of {known}")
        return ServiceProfile.load(name_or_path, base_dir)
    document = read_document(file)
    if isinstance(document, dict) and document.get("kind") == _KIND:
        return RemoteProfile.from_document(document, str(file))
    return ServiceProfile.load(name_or_path, base_dir)


def bundled_apis() -> list[str]:
    """Names of the remote APIs' profiles that ship with simroute, sorted."""
    return sorted(file.name.removesuffix(".json") for file in _folder().iterdir() if file.name.endswith(".json"))


def own_profiles(profiles: Sequence[AnyProfile]) -> list[ServiceProfile]:
    """Those of servers that simroute models step by step."""
    return [profile for profile in profiles if isinstance(profile, ServiceProfile)]


def _folder() -> Traversable:
    return importlib.resources.files("scenarios") / "apis"
