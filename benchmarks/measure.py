"""One run in this process, as JSON: ``measure.py WORKLOAD REQUESTS SERVERS POLICY``."""

import json
import resource
import sys
import time
from typing import Any

import simpy

from simcore.engine import simulate
from simcore.scenario import PolicySpec, Scenario

_BARE_TIMEOUTS = 300_000


def scenario(workload: str, requests: int, servers: int) -> Scenario:
    """The load per server is the same for any number of them."""
    prompt = {"kind": "fixed", "tokens": 1024 if workload == "shared-prefix" else 202}
    rate_rps = (20 if workload == "shared-prefix" else 60) * servers / 6
    spec: dict[str, Any] = {
        "arrivals": {"kind": "poisson", "rate_rps": rate_rps},
        "requests": requests,
        "lengths": {"prompt": prompt, "output": {"kind": "fixed", "tokens": 179}},
    }
    if workload == "shared-prefix":
        spec["prefixes"] = {"groups": 10, "system_prompt": {"kind": "fixed", "tokens": 1024}}
    fleet = [{"profile": "llama-3.1-8b-h100", "count": servers}]
    return Scenario.model_validate({"name": workload, "workload": spec, "servers": fleet})


def bare_timeouts_per_s() -> float:
    """What SimPy itself does: one process that waits again and again."""
    environment = simpy.Environment()

    def wait() -> Any:
        for _ in range(_BARE_TIMEOUTS):
            yield environment.timeout(1)

    environment.process(wait())
    started = time.perf_counter()
    environment.run()
    return _BARE_TIMEOUTS / (time.perf_counter() - started)


def main(workload: str, requests: str, servers: str, policy: str) -> None:
    """Bare SimPy is measured before and after, for the machine's speed changes."""
    case = scenario(workload, int(requests), int(servers))
    bare = [bare_timeouts_per_s()]
    started = time.perf_counter()
    result = simulate(case, PolicySpec(name=policy), seed=0)
    seconds = time.perf_counter() - started
    bare.append(bare_timeouts_per_s())
    assert (result.requests["status"] == "finished").all()
    found = {
        "requests": len(result.requests),
        "seconds": seconds,
        "bare_timeouts_per_s": max(bare),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
