"""What a decision costs under each policy, at 100 servers: ``make bench``.

Steady state: 16 requests in flight a server, prompts of 4,096 tokens of which half is one of 64 system prompts, a
report of each server every 100 decisions. A decision is the policy's choice and its hook on dispatch; the other hooks
of a request's life, and reading its share of the reports, are told beside it.
"""

import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from policies import ClusterView, Policy, RequestView, Route, make_policy, policy_descriptions
from policies.ledger import InFlight, ServerConfig, ServerReport, ServerState
from policies.views import PREFIX_BLOCK_TOKENS

SERVERS = 100
IN_FLIGHT = 16 * SERVERS
PROMPT_BLOCKS = 64
WARM_UP, MEASURED, REPEATS = 4_000, 4_000, 3
ARRIVAL_S = 0.002
MOST_US = 200.0
MOST_US_CONSTANT = 10.0
CONSTANT = {"random", "round_robin", "power_of_two", "consistent_hashing"}
"""Policies that look at a few servers, however many there are."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds."""

    decision_us: float
    other_hooks_us: float


def requests() -> Iterator[RequestView]:
    """Without end; a request's second half is its own."""
    draw = random.Random(1)
    half = PROMPT_BLOCKS // 2
    prefixes = [tuple(draw.getrandbits(62) for _ in range(half)) for _ in range(64)]
    number = 0
    while True:
        blocks = (*draw.choice(prefixes), *(draw.getrandbits(62) for _ in range(half)))
        slo = {"ttft_s": 1.0, "tpot_s": 0.05}
        tokens = PROMPT_BLOCKS * PREFIX_BLOCK_TOKENS
        yield RequestView(number, "m", tokens, 200, number * ARRIVAL_S, blocks, draw.randrange(2_000), 0, slo)
        number += 1


class Case:
    """A policy among servers that serve."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        configs = [ServerConfig(f"s{index}", "m", None, 1.0 + index % 3, index % 10 == 9) for index in range(SERVERS)]
        self.servers = {config.server_id: ServerState(config, index) for index, config in enumerate(configs)}
        self.view = list(self.servers.values())
        self.requests = requests()
        self.in_flight: deque[tuple[RequestView, ServerState]] = deque()
        self.others_s = 0.0
        self.draw = random.Random(2)

    def decide(self, count: int) -> float:
        """Seconds that so many decisions take."""
        policy, spent = self.policy, 0.0
        for request in (next(self.requests) for _ in range(count)):
            now = request.arrived_at
            started = time.perf_counter()
            decision = policy.choose(request, ClusterView(now, self.view, 1))
            spent += time.perf_counter() - started
            if isinstance(decision, Route):
                server = self.servers[decision.server_id]
                server.add(InFlight(request))
                started = time.perf_counter()
                policy.on_dispatch(request, server, now)
                spent += time.perf_counter() - started
                self.in_flight.append((request, server))
            self.go_on(now, request.request_id)
        return spent

    def go_on(self, now: float, number: int) -> None:
        """A first token, an end, and a report now and then."""
        policy = self.policy
        started = time.perf_counter()
        if len(self.in_flight) > IN_FLIGHT // 2:
            policy.on_first_token(*self.in_flight[-(IN_FLIGHT // 2)], now)
        if len(self.in_flight) > IN_FLIGHT:
            request, server = self.in_flight.popleft()
            server.remove(InFlight(request))
            policy.on_finish(request, server, now)
        server = self.view[number % SERVERS]
        used = 4_000 * server.in_flight_requests
        server.read(
            ServerReport(now, server.in_flight_requests, self.draw.randrange(3), used, 400_000, 900.0, 0.1, 0.02)
        )
        policy.on_report(server, now)
        self.others_s += time.perf_counter() - started


def cost(name: str) -> Cost:
    """The least of several measurements: noise only ever adds time."""
    # The gates would hold while a made-up report is older than they allow.
    params: dict[str, object] = {"stale_s": 1e9} if name == "utilization_gate" else {}
    case = Case(make_policy(name, params, 0))
    case.decide(WARM_UP)
    found = []
    for _ in range(REPEATS):
        case.others_s = 0.0
        spent = case.decide(MEASURED)
        found.append(Cost(spent / MEASURED * 1e6, case.others_s / MEASURED * 1e6))
    return min(found, key=lambda each: each.decision_us)


def main() -> None:
    """Print the table; exit with 1 where a decision takes too long."""
    table = Table("policy", "us/decision", "at most", "us for a request's other hooks", "met")
    all_met = True
    for description in policy_descriptions():
        found = cost(description.name)
        most = MOST_US_CONSTANT if description.name in CONSTANT else MOST_US
        met = found.decision_us <= most
        all_met &= met
        numbers = (f"{found.decision_us:.1f}", f"{most:g}", f"{found.other_hooks_us:.1f}")
        table.add_row(description.name, *numbers, "yes" if met else "NO")
    Console().print(table)
    sys.exit(not all_met)


if __name__ == "__main__":
    main()
