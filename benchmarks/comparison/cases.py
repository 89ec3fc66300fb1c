"""What is compared on what: the cases, and every registered policy as a contender, some in several ways."""

from dataclasses import dataclass, field
from typing import Final

from policies import policy_descriptions
from policies.queue_orders import QUEUE_ORDERS
from simcore.scenario import PolicySpec, Scenario, load_scenario

__all__ = ["CASES", "REPORT_INTERVALS_S", "Case", "Contender", "contenders"]

REPORT_INTERVALS_S: Final = (0.05, 0.25, 1.0, 5.0)
_LENGTHS: Final = "expected_output_tokens"
_ORACLE: Final = {"expected": "exact", "mark": " [oracle]"}


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy, told of answers' lengths what ``expected`` (a kind of ``workload.expected_output``) knows."""

    policy: str
    params: tuple[tuple[str, object], ...] = ()
    order: str | None = None
    expected: str = "running_mean"
    mark: str = ""

    @property
    def label(self) -> str:
        """As tables have it."""
        given = ":" + ",".join(f"{name}={value}" for name, value in self.params) if self.params else ""
        return f"{self.policy}{given}{f', {self.order}' if self.order else ''}{self.mark}"

    @property
    def spec(self) -> PolicySpec:
        """As a scenario has it."""
        return PolicySpec(name=self.policy, params=dict(self.params))


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario with what is changed of it. Replicates are seeds, or as many ``blocks`` of one run, one after the
    other, where the scenario is one recorded hour that no seed changes."""

    name: str
    scenario: str
    changes: tuple[str, ...] = ()
    blocks: int = 0
    orders: bool = False
    only: frozenset[str] = field(default_factory=frozenset)

    def load(self, contender: Contender) -> Scenario:
        """The scenario for a contender."""
        changes = [*self.changes, f"workload.expected_output={{kind: {contender.expected}}}"]
        if contender.order:
            changes.append(f"router.queue_order={contender.order}")
        return load_scenario(self.scenario, changes)


_ON_REPORTS: Final = frozenset(
    description.name
    for description in policy_descriptions()
    if {"queued_requests", "running_requests", "kv_tokens_used"} & set(description.needs)
)
_CLOSED_LOOP: Final = (
    "workload.arrivals={kind: closed_loop, max_concurrency: 128}",
    "workload.duration_s=null",
    "workload.requests=2500",
    "workload.prefixes={groups: 300, system_prompt: {kind: fixed, tokens: 4096}}",
    "workload.lengths={prompt: {kind: fixed, tokens: 128}, output: {kind: fixed, tokens: 64}}",
)

CASES: Final = (
    Case("quickstart", "quickstart"),
    Case("shared-prefix", "shared-prefix"),
    Case("cache-bound", "shared-prefix", _CLOSED_LOOP),
    Case("mixed-gpus", "mixed-gpus"),
    Case("overload", "overload", orders=True),
    Case("mooncake-conversation", "mooncake-conversation", blocks=10),
    *(
        Case(
            f"reports-{interval_s:g}s",
            "quickstart",
            (f"router.report_interval_s={interval_s}",),
            only=_ON_REPORTS | {"least_request", "round_robin", "power_of_two:by=kv"},
        )
        for interval_s in REPORT_INTERVALS_S
    ),
)


def contenders(case: Case) -> list[Contender]:
    """Every policy with its defaults; those that ask for answers' lengths also as if they knew them."""
    found = []
    for description in policy_descriptions():
        found.append(Contender(description.name))
        if _LENGTHS in description.needs:
            found.append(Contender(description.name, **_ORACLE))
    found.append(Contender("power_of_two", (("by", "kv"),)))
    if case.orders:
        for order in QUEUE_ORDERS:
            found.append(Contender("least_request", order=order))
            if _LENGTHS in QUEUE_ORDERS[order]().needs:
                found.append(Contender("least_request", order=order, **_ORACLE))
    if case.only:
        return [each for each in found if each.label in case.only]
    return found
