"""A scenario: what the clients send, which servers there are, how the router is set up, and what counts as good."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from .launch import LaunchParameters
from .scenario_file import ScenarioFile, to_yaml
from .scenario_paths import policy_from_here, with_absolute_paths
from .workload import WorkloadSpec

__all__ = [
    "ControlAction",
    "ControllerSpec",
    "PolicySpec",
    "RouterSpec",
    "Scenario",
    "ServerGroup",
    "Slo",
    "json_schema",
    "load_scenario",
    "resolved_yaml",
]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerGroup(_Section):
    """``count`` equal servers, one GPU each, or as many keys of a remote API."""

    profile: str
    """A bundled profile's or API's name, or the path of a .json file relative to the scenario's."""
    count: _Count = 1
    launch: LaunchParameters = LaunchParameters()
    """SGLang's launch parameters; what is not given stays as the profile has it."""
    weight: _Positive = 1.0
    """How fast one of them is beside a server of weight 1; for policies that ask."""
    remote: bool = False
    """Somebody else's, to be used when one's own are full; for policies that ask. A remote API always is."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """The model that they serve, as requests name it; not given: the profile's."""
    price_per_hour: _NonNegative | None = None
    """Of one of them, for cost; not given: it costs nothing, or is not asked for."""


class RouterSpec(_Section):
    """The router in front of the servers."""

    queue_order: str | None = None
    """Which waiting request goes next; not given: the policy's own, which is fcfs for most."""
    queue_limit: Annotated[int, Field(ge=0)] | None = None
    """Most requests that wait at the router; one more is rejected."""
    max_running_requests: _Count | None = None
    """Most requests that the router has in flight on one server. Not the client's max_concurrency."""
    report_interval_s: _Positive = 1.0
    """How often servers are asked for their load. Only policies that decide on reports make them be asked."""
    report_delay_s: _NonNegative = 0.0
    """How long a report is under way."""
    report_age_s: _NonNegative = 0.0
    """How old what it says of a server's load is as it is asked for; the router takes it to be of that moment."""


class PolicySpec(_Section):
    """A policy with its parameters. In YAML also just the name."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}

    @property
    def label(self) -> str:
        """The name under which results are shown: two settings of one policy differ in it."""
        name = self.name.rpartition(":")[2] if ".py:" in self.name else self.name
        if not self.params:
            return name
        return f"{name}({', '.join(f'{key}={value}' for key, value in self.params.items())})"


class ControllerSpec(PolicySpec):
    """A controller with its parameters. In YAML also just the name."""


class ControlAction(_Section):
    """One change while requests run: the router's cap on a server, whether it gets requests, or the policy."""

    at_s: _NonNegative
    server: str | None = None
    """s0, s1, ... in the order of ``servers``; not given: all."""
    max_running_requests: _Count | None = None
    """The router's cap; null: no cap."""
    draining: bool | None = None
    """true: no more requests go there, and those it has end; false: it takes requests again."""
    policy: PolicySpec | None = None
    """Decides from then on; requests that wait or run stay."""

    @property
    def changes_cap(self) -> bool:
        """Whether it is the cap that changes: to null, as well."""
        return "max_running_requests" in self.model_fields_set

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        changes = ("max_running_requests", "draining", "policy")
        given = [name for name in changes if name in self.model_fields_set]
        if len(given) != 1 or (given != ["max_running_requests"] and getattr(self, given[0]) is None):
            raise ValueError(f"give exactly one of {', '.join(changes)}")
        if self.policy is not None and self.server is not None:
            raise ValueError("a policy is the router's, not a server's: leave out 'server'")
        return self


class Slo(_Section):
    """Bounds that a request must meet to count as good output; times from its arrival at the router."""

    ttft_s: _Positive | None = None
    tpot_s: _Positive | None = None
    e2e_s: _Positive | None = None

    def bounds(self) -> dict[str, float]:
        """Those that are set."""
        return self.model_dump(exclude_none=True)


class Scenario(_Section):
    """Everything about a run except the policy. ``policies`` are those compared when none is named."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    warmup_s: _NonNegative = 0.0
    """Requests that arrive before it are served but not measured."""
    workload: WorkloadSpec
    servers: Annotated[tuple[ServerGroup, ...], Field(min_length=1)]
    router: RouterSpec = RouterSpec()
    policies: Annotated[tuple[PolicySpec, ...], Field(min_length=1)] = (
        PolicySpec(name="random"),
        PolicySpec(name="round_robin"),
        PolicySpec(name="least_request"),
        PolicySpec(name="power_of_two"),
    )
    slo: Slo = Slo()
    control: tuple[ControlAction, ...] = ()
    controller: ControllerSpec | None = None
    """What changes the router's caps by what it sees of the servers; not given: nothing but ``control``."""

    _base_dir: Path = PrivateAttr(default_factory=Path)

    @property
    def base_dir(self) -> Path:
        """What relative paths in the scenario are relative to."""
        return self._base_dir

    @field_validator("control")
    @classmethod
    def _control_names_servers(
        cls, control: tuple[ControlAction, ...], info: ValidationInfo
    ) -> tuple[ControlAction, ...]:
        count = sum(group.count for group in info.data.get("servers", ()))
        for index, action in enumerate(control):
            if count and action.server is not None and action.server not in {f"s{number}" for number in range(count)}:
                raise ValueError(f"{index}.server: no server {action.server!r}; there are s0 to s{count - 1}")
        return control

    @field_validator("controller")
    @classmethod
    def _one_decides_on_caps(cls, controller: ControllerSpec | None, info: ValidationInfo) -> ControllerSpec | None:
        if controller is not None and any(action.changes_cap for action in info.data.get("control", ())):
            raise ValueError("control changes caps, too: leave one of them out, or use the controller fixed_schedule")
        return controller


def load_scenario(name_or_path: str, overrides: Sequence[str] = ()) -> Scenario:
    """A bundled scenario by name, or one from a file, with ``a.b=value`` overrides applied. Raises UserError.

    Files of policies and controllers, which are named relative to the scenario's, are named from where the process
    runs.
    """
    file = ScenarioFile.find(name_or_path)
    for override in overrides:
        file.override(override)
    scenario = file.validate(Scenario)
    scenario._base_dir = file.base_dir
    policies = tuple(
        policy.model_copy(update={"name": policy_from_here(policy.name, file.base_dir)}) for policy in scenario.policies
    )
    controller = scenario.controller
    if controller is not None:
        controller = controller.model_copy(update={"name": policy_from_here(controller.name, file.base_dir)})
    return scenario.model_copy(update={"policies": policies, "controller": controller})


def json_schema() -> dict[str, Any]:
    """The JSON schema of scenario files, for editors."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def resolved_yaml(scenario: Scenario) -> str:
    """The scenario with every default written out, as YAML that gives the same run from any folder."""
    document = scenario.model_dump(mode="json", exclude={"servers"})
    # Launch parameters stand for the profile's where they are not given, so only those given may be written.
    groups = [
        {**group.model_dump(mode="json"), "launch": group.launch.model_dump(mode="json", exclude_unset=True)}
        for group in scenario.servers
    ]
    # So too for control: an action is the one change that it gives.
    control = [action.model_dump(mode="json", exclude_unset=True) for action in scenario.control]
    return to_yaml(with_absolute_paths({**document, "servers": groups, "control": control}, scenario.base_dir))
