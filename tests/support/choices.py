"""A policy asked by hand: servers, requests, and what it is told between two choices."""

from collections.abc import Sequence
from typing import Any

from policies import ClusterView, Decision, Hold, Policy, Reject, RequestView, Route, make_policy
from policies.ledger import InFlight, ServerConfig, ServerReport, ServerState

Blocks = tuple[int, ...]


def request(
    request_id: int = 0,
    *,
    prompt: int | None = None,
    expected: int | None = 100,
    blocks: Blocks = (),
    session: int | None = None,
    priority: int = 0,
    at: float = 0.0,
    slo: dict[str, float] | None = None,
) -> RequestView:
    """One whose prompt is its blocks, of 64 tokens each, unless it is said how long it is."""
    tokens = 64 * len(blocks) or 50 if prompt is None else prompt
    return RequestView(request_id, "m", tokens, expected, at, blocks, session, priority, slo or {})


def blocks(text: str) -> Blocks:
    """Chained hashes of a prompt with a letter a block: equal exactly as far as the texts are."""
    return tuple(hash(tuple(map(ord, text[: end + 1]))) for end in range(len(text)))


class Bench:
    """Servers s0, s1, ... with requests in flight as given, and a policy that decides over them.

    ``send`` chooses and dispatches, as the router would: what was sent stays in flight until ``finish``.
    """

    def __init__(
        self,
        policy: str | Policy,
        loads: Sequence[int] = (0, 0),
        /,
        *,
        weights: Sequence[float] = (),
        remote: Sequence[int] = (),
        seed: int = 0,
        **params: Any,
    ) -> None:
        self.policy = make_policy(policy, params, seed) if isinstance(policy, str) else policy
        self.now = 0.0
        self.servers: list[ServerState] = []
        for index, load in enumerate(loads):
            weight = weights[index] if weights else 1.0
            server = ServerState(ServerConfig(f"s{index}", "m", None, weight, index in remote), index)
            server.in_flight_requests = load
            self.servers.append(server)
        self._next_id = 1000

    def decide(self, view: RequestView, among: Sequence[int] | None = None) -> Decision:
        """What it answers; only these servers are open, where some are named."""
        servers = self.servers if among is None else [self.servers[index] for index in among]
        return self.policy.choose(view, ClusterView(self.now, servers, 1))

    def choose(self, view: RequestView | None = None, among: Sequence[int] | None = None) -> int:
        """The index of the server that it chooses."""
        decision = self.decide(view or request(), among)
        assert isinstance(decision, Route), decision
        return int(decision.server_id[1:])

    def holds(self) -> bool:
        return isinstance(self.decide(request()), Hold)

    def rejects(self) -> bool:
        return isinstance(self.decide(request()), Reject)

    def dispatch(self, view: RequestView, index: int) -> RequestView:
        """It goes there, whatever the policy would say."""
        if not view.request_id:
            self._next_id += 1
            view = view._replace(request_id=self._next_id)
        self.servers[index].add(InFlight(view))
        self.policy.on_dispatch(view, self.servers[index], self.now)
        return view

    def send(self, view: RequestView | None = None, among: Sequence[int] | None = None) -> int:
        """Chosen and dispatched."""
        view = view or request()
        index = self.choose(view, among)
        self.dispatch(view, index)
        return index

    def first_token(self, view: RequestView, index: int) -> None:
        self.policy.on_first_token(view, self.servers[index], self.now)

    def finish(self, view: RequestView, index: int) -> None:
        self.servers[index].remove(InFlight(view))
        self.policy.on_finish(view, self.servers[index], self.now)

    def report(self, index: int, **report: Any) -> None:
        """The server's report of now arrived."""
        self.servers[index].read(ServerReport(self.now, **report))
        self.policy.on_report(self.servers[index], self.now)
