"""``servers.yaml``: what the router service listens on, how it routes, and which servers are behind it."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.ledger import ServerConfig
from simcore.errors import UserError
from simcore.scenario import ControllerSpec, PolicySpec
from simcore.scenario_file import ScenarioFile

__all__ = ["ServerEntry", "ServiceConfig", "load_config", "secret"]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerEntry(_Section):
    """One server."""

    url: str
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    """Not given: s0, s1, ... in order."""
    backend: Literal["sglang", "openai", "tgi"] = "sglang"
    max_running_requests: _Count | None = None
    """Most requests in flight there at once; not given: no cap."""
    api_key_env: str | None = None
    """The environment variable with the server's key: keys never stand in the file."""
    weight: _Positive = 1.0
    """How fast it is beside a server of weight 1; for policies that ask."""
    remote: bool = False
    """Somebody else's, to be used when one's own are full; for policies that ask."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Its model as clients name it; not given: as the server does."""
    upstream_model: Annotated[str, Field(min_length=1)] | None = None
    """Which of the models that an OpenAI-compatible API offers, as it names it; not given: the first."""
    requests_per_minute: _Positive | None = None
    """The API's limit: while it is used up, requests go elsewhere or wait; not given: none that the router knows of."""
    tokens_per_minute: _Positive | None = None
    """As requests_per_minute, of prompts and of what is expected of answers."""

    @model_validator(mode="after")
    def _upstream_model_is_an_apis(self) -> Self:
        if self.upstream_model is not None and self.backend != "openai":
            raise ValueError("'upstream_model' chooses among those of an API: it needs 'backend: openai'")
        return self

    def config(self, server_id: str, model: str) -> ServerConfig:
        """As the router knows it."""
        return ServerConfig(
            server_id,
            model,
            self.max_running_requests,
            self.weight,
            self.remote,
            self.requests_per_minute,
            self.tokens_per_minute,
        )


class ServiceConfig(_Section):
    """The whole file. Times are seconds."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 30000
    policy: PolicySpec = PolicySpec(name="least_request")
    controller: ControllerSpec | None = None
    """Changes the servers' caps by what it sees of them; not given: only commands do."""
    seed: Annotated[int, Field(ge=0)] = 0
    queue_order: str | None = None
    queue_limit: Annotated[int, Field(ge=0)] = 256
    """Most requests that wait at the router; one more is answered with 429."""
    queue_timeout_s: _Positive = 30.0
    """A request that waits longer is answered with 504."""
    max_attempts: _Count = 3
    """Most servers' answers that are tried before the client's first byte."""
    backoff_s: _Positive = 0.05
    first_byte_timeout_s: _Positive = 600.0
    idle_timeout_s: _Positive = 120.0
    """Longest silence in the middle of an answer."""
    startup_timeout_s: Annotated[float, Field(ge=0)] = 0.0
    """How long servers may take to become reachable when the service starts."""
    drain_timeout_s: _Positive = 60.0
    """After SIGTERM, how long requests may take to end."""
    max_body_bytes: _Count = 16 << 20
    expected_output_tokens: _Count = 256
    """What policies expect of an answer's length until answers have been seen."""
    health_interval_s: _Positive = 1.0
    report_interval_s: _Positive = 1.0
    breaker_failures: _Count = 5
    breaker_open_s: _Positive = 5.0
    breaker_successes: _Count = 3
    api_key_env: str | None = None
    """The environment variable with the clients' key, or several, comma-separated; not given: no key is asked for."""
    admin_key_env: str | None = None
    """The environment variable with the key for /admin; not given: /admin is closed."""
    servers: Annotated[tuple[ServerEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = self.server_ids
        for server_id in ids:
            if ids.count(server_id) > 1:
                raise ValueError(f"two servers have the id {server_id!r}")
        return self

    @property
    def server_ids(self) -> list[str]:
        """Each server's id, given or not."""
        return [entry.id or f"s{index}" for index, entry in enumerate(self.servers)]


def load_config(path: Path, changes: dict[str, Any]) -> ServiceConfig:
    """Read the file; ``changes`` that are not None stand for what it says. Raises UserError with file and line."""
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{path}: a service's file ends in .yaml")
    file = ScenarioFile.find(str(path))
    for key, value in changes.items():
        if value is not None:
            file.override(f"{key}={value}")
    return file.validate(ServiceConfig)


def secret(variable: str | None) -> str | None:
    """A key from the environment. Raises UserError where it is named but not set."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise UserError(f"the environment variable {variable} is to hold a key, and is not set")
    return value
