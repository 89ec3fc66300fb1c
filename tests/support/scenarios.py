"""Random small scenarios, with all that a run can meet in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from policies import policy_descriptions
from policies.queue_orders import QUEUE_ORDERS
from simcore.scenario import Scenario

from .engine import flat_profile, fleet, scenario
from .servers import STEPS

Section = Mapping[str, Any]

_ORDERS = [name for name, order in QUEUE_ORDERS.items() if "slo" not in order.needs]


@dataclass(frozen=True)
class Case:
    """A scenario but for the folder that its profiles' files need, and the policy and seed of its run."""

    profiles: list[Section]
    workload: Section
    sections: Section
    policy: str
    seed: int

    def scenario(self, folder: Path) -> Scenario:
        servers = fleet(folder, *(flat_profile(**{"steps": STEPS, **profile}) for profile in self.profiles))
        return scenario(servers, self.workload, **self.sections)


def _profiles() -> st.SearchStrategy[Section]:
    return st.fixed_dictionaries(
        {
            "max_running_requests": st.integers(1, 8),
            "max_queued_requests": st.sampled_from([None, None, 2]),
            "kv_tokens": st.integers(600, 3000),
            "context_length": st.sampled_from([500, 400_000]),
            "overlap": st.booleans(),
            "radix_cache": st.booleans(),
            "page_size": st.sampled_from([1, 1, 16]),
            "chunked_prefill_size": st.sampled_from([None, 64]),
            "schedule_conservativeness": st.sampled_from([0.05, 1.0]),
            "batching": st.sampled_from(["continuous", "continuous", "static"]),
            "requests": st.sampled_from([None, {"ingress_s": 0.01, "egress_s": 0.02, "last_token_s": 0.003}]),
        }
    )


def _arrivals() -> st.SearchStrategy[Section]:
    rates = st.floats(1, 100)
    return st.one_of(
        st.fixed_dictionaries({"kind": st.sampled_from(["poisson", "constant"]), "rate_rps": rates}),
        st.fixed_dictionaries({"kind": st.just("gamma"), "rate_rps": rates, "cv": st.floats(0.2, 3)}),
        st.just({"kind": "bursty", "rate_rps": 0, "burst_rate_rps": 80, "on_s": 0.2, "off_s": 1}),
        st.fixed_dictionaries({"kind": st.just("closed_loop"), "max_concurrency": st.integers(1, 9)}),
    )


def _optional(key: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Section]:
    return st.one_of(st.just({}), value.map(lambda drawn: {key: drawn}))


def _lengths(longest: int) -> st.SearchStrategy[Section]:
    return st.one_of(
        st.fixed_dictionaries({"kind": st.just("uniform"), "max_tokens": st.integers(1, longest)}),
        st.fixed_dictionaries({"kind": st.just("lognormal"), "mean_tokens": st.floats(1, longest), "cv": st.just(1)}),
    )


@st.composite
def _workloads(draw: st.DrawFn) -> Section:
    arrivals = draw(_arrivals())
    limit = {} if arrivals["kind"] == "closed_loop" else draw(_optional("max_concurrency", st.integers(1, 6)))
    message = {"kind": "uniform", "max_tokens": 40}
    sessions = st.fixed_dictionaries(
        {
            "turns": st.fixed_dictionaries({"kind": st.just("uniform"), "max_turns": st.integers(1, 4)}),
            "think_s": st.sampled_from([{"kind": "fixed", "time_s": 0}, {"kind": "exponential", "mean_s": 1}]),
            "message": st.just(message),
        }
    )
    prefixes = st.fixed_dictionaries({"groups": st.integers(1, 4), "system_prompt": _lengths(100)})
    return {
        "arrivals": arrivals,
        "requests": draw(st.integers(1, 40)),
        "lengths": {"prompt": draw(_lengths(300)), "output": draw(_lengths(60))},
        "max_new_tokens": draw(st.sampled_from(["exact", "exact", 100])),
        **limit,
        **draw(_optional("sessions", sessions)),
        **draw(_optional("prefixes", prefixes)),
    }


def _sections() -> st.SearchStrategy[Section]:
    caps = st.one_of(st.none(), st.integers(1, 6))
    router = st.fixed_dictionaries(
        {
            "max_running_requests": caps,
            "queue_limit": st.one_of(st.none(), st.integers(0, 5)),
            "queue_order": st.sampled_from([None, *_ORDERS]),
            "report_interval_s": st.sampled_from([0.05, 1.0]),
            "report_delay_s": st.sampled_from([0.0, 0.1]),
            "report_age_s": st.sampled_from([0.0, 0.07, 1.5]),
        }
    )
    action = st.fixed_dictionaries({"at_s": st.floats(0, 3), "max_running_requests": caps})
    return st.fixed_dictionaries({"router": router, "control": st.lists(action, max_size=2)})


def cases() -> st.SearchStrategy[Case]:
    """One to three servers under any bundled policy."""
    make: Callable[..., Case] = Case
    return st.builds(
        make,
        profiles=st.lists(_profiles(), min_size=1, max_size=3),
        workload=_workloads(),
        sections=_sections(),
        policy=st.sampled_from([policy.name for policy in policy_descriptions()]),
        seed=st.integers(0, 5),
    )
