"""A run simulated as it was, and as it might have been."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from simcore.compare.agreement import Agreement, agreements
from simcore.compare.agreement_tables import trust
from simcore.compare.breakdown import Part, breakdown
from simcore.compare.side import Side, side_of
from simcore.engine import simulate
from simcore.experiment.check import check_experiment
from simcore.profile_measurement import Trust
from simcore.report import Comparison, MeasuredRun, compare
from simcore.run_folder import StoredRun
from simcore.scenario import PolicySpec, Scenario
from simcore.summary import json_safe
from simcore.twin import twin_of

from .recorded import recorded_scenario, recorded_workload

__all__ = ["WHATIF_SCHEMA_VERSION", "Counterfactual", "what_if"]

WHATIF_SCHEMA_VERSION: Final = 1
_AS_IT_WAS: Final = "as it was"


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """``real`` is the run, ``twin`` the same simulated, ``alternatives`` the others, and ``comparison`` ranks the twin
    and them. ``exact``: the twin's requests went as the run's in every column."""

    real: Side
    twin: Side
    alternatives: tuple[Side, ...]
    agreements: dict[str, Agreement]
    parts: tuple[Part, ...]
    exact: bool
    comparison: Comparison

    @property
    def verdict(self) -> tuple[Trust, list[str]]:
        """Whether to trust the alternatives, and what speaks against it."""
        return trust(self.agreements)

    def to_dict(self) -> dict[str, Any]:
        """As JSON; NaN as None."""
        verdict, reasons = self.verdict
        safe = json_safe(
            {
                "schema_version": WHATIF_SCHEMA_VERSION,
                "run": self.real.summary.to_dict(),
                "reproduction": {
                    "exact": self.exact,
                    "verdict": verdict,
                    "reasons": reasons,
                    "errors": {name: asdict(one) for name, one in self.agreements.items()},
                    "breakdown": [{**asdict(part), "error_s": part.error_s} for part in self.parts],
                },
                "comparison": self.comparison.to_dict(),
                "runs": [side.summary.to_dict() for side in (self.twin, *self.alternatives)],
            }
        )
        assert isinstance(safe, dict)
        return safe


def what_if(
    run: StoredRun, policies: Sequence[PolicySpec], overrides: Sequence[str], profile: str | None
) -> Counterfactual:
    """Simulate the run's requests as they were served, then under each of the policies with the overrides; with
    overrides alone under its own policy. Raises UserError and PolicyError before anything is simulated."""
    base = _twin(run, recorded_scenario(run, (), profile))
    changed = _twin(run, recorded_scenario(run, overrides, profile))
    (own,) = base.policies
    wanted = list(policies) or ([own] if overrides else [])
    changed = changed.model_copy(update={"policies": tuple(wanted) or (own,)})
    check_experiment(base)
    check_experiment(changed)
    workload, seed = recorded_workload(run, base), run.result.seed
    result = simulate(base, own, seed, workload=workload)
    real = Side.make("the run", run.result, run.summary)
    twin = side_of(f"{own.label} ({_AS_IT_WAS})", result, base)
    others = tuple(
        side_of(_label(policy, overrides), simulate(changed, policy, seed, workload=workload), base)
        for policy in wanted
    )
    return Counterfactual(
        real,
        twin,
        others,
        agreements([real], [twin]),
        tuple(breakdown([real], [twin])),
        _same_course(real, twin),
        compare([_named(side) for side in (twin, *others)]),
    )


def _twin(run: StoredRun, scenario: Scenario) -> Scenario:
    if run.result.kind == "sim":
        return scenario
    notes = json.loads((run.path / "live.json").read_text(encoding="utf-8"))
    return twin_of(scenario, check_experiment(scenario), emulated=notes["emulated"])


def _label(policy: PolicySpec, overrides: Sequence[str]) -> str:
    return ", ".join([policy.label, *overrides])


def _named(side: Side) -> MeasuredRun:
    return MeasuredRun(replace(side.summary, policy=side.label), side.observed)


def _same_course(real: Side, twin: Side) -> bool:
    columns = ["server_id", "status", "arrived_at", "dispatched_at", "first_token_at", "finished_at", "output_tokens"]
    return all(
        np.array_equal(
            real.result.requests[column].to_numpy(),
            twin.result.requests[column].to_numpy(),
            equal_nan=column.endswith("_at"),
        )
        for column in columns
    )
