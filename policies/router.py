"""The router: a pure state machine, events in, actions out, shared by the simulator and the live service.

    arrival --> queued --> dispatched --> finished
       |          |  ^          |
       v          |  +-- retry -+--> failed
    rejected      +--> rejected, cancelled

Every transition of a request is made here and nowhere else. The router has no clock: each event carries ``now``. It
does nothing by itself: it returns actions, and its driver (SimPy or aiohttp) carries them out.

A server's cap ``max_running_requests`` counts the requests dispatched there and not yet ended. It can change while
requests run: raising it admits at once, lowering it stops new dispatches until the count has fallen and preempts
nothing.

A server with a rate limit is closed while the limit is used up. The router cannot see time pass: its driver calls
``on_room`` at the time that ``opens_at`` of the server's ``rate`` says.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from .base import Policy, QueueOrder
from .errors import PolicyError
from .ledger import InFlight, ServerConfig, ServerReport, ServerState
from .queue_orders import FirstComeFirstServed
from .views import ClusterView, Hold, Reject, RequestView, Route
from .waiting import WaitingQueue

__all__ = ["Abort", "Action", "Dispatch", "Fail", "Refuse", "Router"]


class Dispatch(NamedTuple):
    """Send the request to the server now; ``attempt`` counts from 1."""

    request_id: int
    server_id: str
    attempt: int


class Refuse(NamedTuple):
    """Tell the client that the request is turned away."""

    request_id: int
    reason: str


class Fail(NamedTuple):
    """Tell the client that the request has failed and is not tried again."""

    request_id: int
    reason: str


class Abort(NamedTuple):
    """Tell the server that the client is gone."""

    request_id: int
    server_id: str


Action = Dispatch | Refuse | Fail | Abort

# A NamedTuple's own constructor is a function in Python; of these two one is made for every request.
_dispatch = partial(tuple.__new__, Dispatch)
_cluster_view = partial(tuple.__new__, ClusterView)


class Router:
    """One policy over servers, grouped by the model they serve.

    ``queue_limit`` bounds the requests waiting at the router (None for no bound, 0 for no queue at all);
    ``max_attempts`` how often a request is dispatched when servers fail under it.
    """

    def __init__(
        self,
        servers: Sequence[ServerConfig],
        policy: Policy,
        *,
        order: QueueOrder | None = None,
        queue_limit: int | None = None,
        max_attempts: int = 1,
    ) -> None:
        self._follow(policy)
        self.servers = {config.server_id: ServerState(config, index) for index, config in enumerate(servers)}
        self.order = order or (policy.order or FirstComeFirstServed)()
        self._queue_limit = queue_limit
        self._max_attempts = max_attempts
        self._requests: dict[int, InFlight] = {}
        self._queues: dict[str, WaitingQueue] = {}
        self._open: dict[str, list[ServerState]] = {}
        for state in self.servers.values():
            self._queues.setdefault(state.model, WaitingQueue(self.order))
            self._open.setdefault(state.model, [])
            self._update_open(state)

    @property
    def queued_requests(self) -> int:
        """Requests waiting at the router."""
        return sum(len(queue) for queue in self._queues.values())

    # -- requests ------------------------------------------------------------------------------------------------

    def on_arrival(self, now: float, request: RequestView) -> list[Action]:
        """A request reached the router."""
        request_id, model = request.request_id, request.model
        queue = self._queues.get(model)
        if queue is None:
            return [Refuse(request_id, f"no server serves the model {model!r}")]
        entry = self._requests[request_id] = InFlight(request)
        if not queue.waiting and (servers := self._open[model]):
            action = self._try(now, entry, servers, 1)
            if action is not None:
                return [action]
        queue.push(entry)
        actions = self._pump(now, model) if len(queue) > 1 else []
        limit = self._queue_limit
        still_waiting = entry.server is None and request_id in self._requests
        if limit is not None and len(queue) > limit and still_waiting:
            del self._requests[request_id]
            queue.remove(entry)
            actions.append(Refuse(request_id, "the router's queue is full"))
        return actions

    def on_first_token(self, now: float, request_id: int) -> None:
        """A request's first token arrived from its server."""
        entry = self._requests[request_id]
        assert entry.server is not None, f"request {request_id} has a token but no server"
        self.policy.on_first_token(entry.request, entry.server, now)

    def on_finish(self, now: float, request_id: int) -> list[Action]:
        """A request's last token arrived from its server."""
        entry = self._requests.pop(request_id)
        self._release(now, entry)
        model = entry.model
        return self._pump(now, model) if self._queues[model].waiting else []

    def on_failure(self, now: float, request_id: int, reason: str, *, retry: bool) -> list[Action]:
        """A request's server failed it; ``retry`` says that nothing of the answer has been passed on yet."""
        entry = self._requests[request_id]
        server = self._release(now, entry)
        actions: list[Action] = []
        if retry and entry.attempts < self._max_attempts:
            entry.tried |= {server.server_id}
            self._queues[entry.model].push_front(entry)
        else:
            del self._requests[request_id]
            actions.append(Fail(request_id, reason))
        return actions + self._pump(now, entry.model)

    def on_limited(self, now: float, request_id: int, retry_after_s: float) -> list[Action]:
        """A server with a rate limit took nothing of the request, for there was too much already (HTTP 429). It waits
        on at the head of the queue, this attempt uncounted, and the server is closed for ``retry_after_s``."""
        entry = self._requests[request_id]
        state = entry.server
        assert state is not None, f"request {request_id} was turned away by no server"
        assert state.rate is not None, f"{state.server_id} has no rate limit"
        state.rate.push_back(now + retry_after_s, entry.tokens)
        state.in_budget = state.rate.opens_at <= now
        self._release(now, entry)
        self._update_open(state)
        entry.attempts -= 1
        self._queues[entry.model].push_front(entry)
        return self._pump(now, entry.model)

    def on_cancel(self, now: float, request_id: int) -> list[Action]:
        """The client of a request went away, wherever the request is."""
        entry = self._requests.pop(request_id)
        model = entry.model
        if entry.server is None:
            self._queues[model].remove(entry)
            return self._pump(now, model)
        server = self._release(now, entry)
        return [Abort(request_id, server.server_id), *self._pump(now, model)]

    # -- servers -------------------------------------------------------------------------------------------------

    def on_report(self, now: float, server_id: str, report: ServerReport) -> list[Action]:
        """A server's report arrived; a held request is asked for again."""
        state = self.servers[server_id]
        state.read(report)
        self.policy.on_report(state, now)
        return self._pump(now, state.model)

    def on_room(self, now: float, server_id: str) -> list[Action]:
        """The time has come at which a server's rate limit may leave room again."""
        state = self.servers[server_id]
        state.in_budget = state.rate is None or state.rate.opens_at <= now
        self._update_open(state)
        return self._pump(now, state.model)

    def set_cap(self, now: float, server_id: str, max_running_requests: int | None) -> list[Action]:
        """Change a server's cap while requests run."""
        state = self.servers[server_id]
        state.max_running_requests = max_running_requests
        state.limited = max_running_requests is not None or state.rate is not None
        self._update_open(state)
        return self._pump(now, state.model)

    def set_health(self, now: float, server_id: str, healthy: bool) -> list[Action]:
        """A server came up or went down; what runs there ends by its own events."""
        state = self.servers[server_id]
        state.healthy = healthy
        self._update_open(state)
        return self._pump(now, state.model)

    # -- while requests run --------------------------------------------------------------------------------------

    def add_server(self, now: float, config: ServerConfig) -> list[Action]:
        """A server joins. Raises PolicyError where its id is taken."""
        if config.server_id in self.servers:
            raise PolicyError(f"there is a server {config.server_id!r} already")
        index = max((state.index for state in self.servers.values()), default=-1) + 1
        state = self.servers[config.server_id] = ServerState(config, index)
        self._queues.setdefault(state.model, WaitingQueue(self.order))
        self._open.setdefault(state.model, [])
        self._update_open(state)
        return self._pump(now, state.model)

    def remove_server(self, now: float, server_id: str) -> list[Action]:
        """A server on which nothing is in flight leaves. Raises PolicyError where something is."""
        state = self.servers[server_id]
        if state.in_flight_requests:
            raise PolicyError(f"server {server_id!r} has {state.in_flight_requests} requests in flight: drain it first")
        state.healthy = False
        self._update_open(state)
        del self.servers[server_id]
        return []

    def switch_policy(self, now: float, policy: Policy, order: QueueOrder | None = None) -> list[Action]:
        """Another policy decides from now on; it is told of what is in flight. Requests wait on in its order."""
        self._follow(policy)
        self.order = order or (policy.order or FirstComeFirstServed)()
        for entry in self._requests.values():
            if entry.server is not None:
                policy.on_dispatch(entry.request, entry.server, now)
        actions: list[Action] = []
        for model, queue in self._queues.items():
            self._queues[model] = WaitingQueue(self.order)
            for entry in queue.entries():
                self._queues[model].push(entry)
        for model in self._queues:
            actions += self._pump(now, model)
        return actions

    # -- the machinery -------------------------------------------------------------------------------------------

    def _follow(self, policy: Policy) -> None:
        self.policy = policy
        # Two calls a request that most policies have no use for.
        self._tells_dispatch = type(policy).on_dispatch is not Policy.on_dispatch
        self._tells_finish = type(policy).on_finish is not Policy.on_finish

    def _pump(self, now: float, model: str) -> list[Action]:
        """Dispatch from the head of the queue for as long as a server is open and the policy does not hold."""
        queue = self._queues[model]
        actions: list[Action] = []
        if not queue.waiting:
            return actions
        servers = self._open[model]
        while servers and (entry := queue.peek()) is not None:
            action = self._try(now, entry, servers, len(queue))
            if action is None:
                break
            queue.pop()
            actions.append(action)
        return actions

    def _try(self, now: float, entry: InFlight, servers: Sequence[ServerState], queued: int) -> Action | None:
        """Ask the policy where a request goes, and enter its answer in the books; None where it holds the queue."""
        request = entry.request
        if entry.tried:
            servers = [server for server in servers if server.server_id not in entry.tried] or servers
        decision = self.policy.choose(request, _cluster_view((now, servers, queued)))
        if isinstance(decision, Route):
            state = self.servers.get(decision.server_id)
            if state is None or not state.open or state.model != entry.model:
                raise self._misrouted(decision, request, state)
            entry.server = state
            entry.attempts += 1
            state.add(entry)
            if state.limited:
                self._count_against_limits(now, entry, state)
            if self._tells_dispatch:
                self.policy.on_dispatch(request, state, now)
            return _dispatch((request.request_id, state.server_id, entry.attempts))
        if isinstance(decision, Hold):
            return None
        if isinstance(decision, Reject):
            del self._requests[request.request_id]
            return Refuse(request.request_id, decision.reason)
        raise PolicyError(f"policy {self.policy.name}: choose() must return Route, Hold or Reject, not {decision!r}")

    def _misrouted(self, decision: Route, request: RequestView, state: ServerState | None) -> PolicyError:
        routed = f"policy {self.policy.name} routed request {request.request_id} to"
        if state is None:
            return PolicyError(
                f"{routed} the unknown server {decision.server_id!r} (servers: {', '.join(self.servers)})"
            )
        return PolicyError(
            f"{routed} {decision.server_id!r}, which is down, at its cap or limit, or serves another model: "
            f"choose one of cluster.servers"
        )

    def _release(self, now: float, entry: InFlight) -> ServerState:
        state = entry.server
        assert state is not None, f"request {entry.request.request_id} ends on no server"
        entry.server = None
        state.remove(entry)
        if state.max_running_requests is not None:
            self._update_open(state)
        if self._tells_finish:
            self.policy.on_finish(entry.request, state, now)
        return state

    def _count_against_limits(self, now: float, entry: InFlight, state: ServerState) -> None:
        if state.rate is not None:
            state.rate.take(now, entry.tokens)
            state.in_budget = state.rate.opens_at <= now
        self._update_open(state)

    def _update_open(self, state: ServerState) -> None:
        """Note whether a server may be dispatched to; the list of those stays sorted by index, for a stable order."""
        cap = state.max_running_requests
        is_open = state.healthy and state.in_budget and (cap is None or state.in_flight_requests < cap)
        if is_open == state.open:
            return
        state.open = is_open
        servers = self._open[state.model]
        at = bisect_left(servers, state.index, key=lambda server: server.index)
        if is_open:
            servers.insert(at, state)
        else:
            del servers[at]
