"""Drives the router in the real world: tells it of events at their time, and carries its actions out.

This is the only place where an action becomes a dispatch, for the router service and for the load generator alike; the
simulator's engine is its counterpart.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Protocol

from policies import Policy, RequestView, make_order
from policies.controllers import Cap, ControlledRouter
from policies.ledger import ServerConfig, ServerReport, ServerState
from policies.per_model import per_model
from policies.router import Abort, Action, Dispatch, Fail, Refuse, Router

from .event_log import EventLog, RouterSetup
from .watched import OnDecided, WatchedPolicy

__all__ = ["Driver", "Job"]


class Job(Protocol):
    """A request, told what the router has decided about it."""

    def dispatch(self, server_id: str, attempt: int) -> None:
        """Send it to the server."""

    def refuse(self, reason: str) -> None:
        """It is turned away."""

    def fail(self, reason: str) -> None:
        """It has failed and is not tried again."""

    def abort(self, server_id: str) -> None:
        """Its client is gone; the server need not go on."""


class Driver:
    """One router with its jobs. ``now`` gives the time; ``log`` gets every event, where there is one.

    ``on_defect`` is told of what a policy or a controller raises before it is raised on: dispatches that were decided
    at the same moment are lost then, and the router's books are not to be trusted any more.
    """

    def __init__(
        self,
        setup: RouterSetup,
        now: Callable[[], float],
        *,
        log: EventLog | None = None,
        on_decided: OnDecided | None = None,
        on_defect: Callable[[Exception], None] | None = None,
    ) -> None:
        self.now = now
        self._log = log
        self._on_decided = on_decided
        self._on_defect = on_defect
        self.policy = self._watched(setup.make_policy())
        self._router: Router = setup.router(self.policy)
        self._jobs: dict[int, Job] = {}

    @property
    def servers(self) -> dict[str, ServerState]:
        """The router's books."""
        return self._router.servers

    @property
    def needs(self) -> frozenset[str]:
        """What the policy and the controller decide on, of requests and of servers' reports."""
        router = self._router
        return self.policy.needs | (router.needs if isinstance(router, ControlledRouter) else frozenset())

    @property
    def queued_requests(self) -> int:
        """Requests that wait at the router."""
        return self._router.queued_requests

    @property
    def requests(self) -> int:
        """Requests that have not come to their end."""
        return len(self._jobs)

    # -- requests ------------------------------------------------------------------------------------------------

    def arrive(self, view: RequestView, job: Job) -> None:
        """A request reached the router."""
        self._jobs[view.request_id] = job
        self._tell("arrival", self._router.on_arrival, view)

    def first_token(self, request_id: int) -> None:
        """A request's first token arrived."""
        self._tell("first_token", self._router.on_first_token, request_id)

    def finish(self, request_id: int) -> None:
        """A request's answer is complete."""
        del self._jobs[request_id]
        self._tell("finish", self._router.on_finish, request_id)

    def failure(self, request_id: int, reason: str, *, retry: bool) -> None:
        """A request's server failed it; ``retry``: nothing of the answer has been passed on."""

        def on_failure(now: float, request_id: int, reason: str, retry: bool) -> list[Action]:
            return self._router.on_failure(now, request_id, reason, retry=retry)

        self._tell("failure", on_failure, request_id, reason, retry)

    def limited(self, request_id: int, retry_after_s: float) -> None:
        """A server with a rate limit took nothing of a request, and has room again after this time."""
        self._tell("limited", self._router.on_limited, request_id, retry_after_s)

    def cancel(self, request_id: int) -> None:
        """A request's client is gone, or does not want to wait any longer."""
        self._tell("cancel", self._router.on_cancel, request_id)
        self._jobs.pop(request_id, None)

    # -- servers -------------------------------------------------------------------------------------------------

    def report(self, server_id: str, report: ServerReport) -> None:
        """A server's report arrived."""
        self._tell("report", self._router.on_report, server_id, report)

    def room(self, server_id: str) -> None:
        """A server's rate limit may leave room again."""
        self._tell("room", self._router.on_room, server_id)

    def set_cap(self, server_id: str, max_running_requests: int | None) -> None:
        """Change a server's cap."""
        self._tell("cap", self._router.set_cap, server_id, max_running_requests)

    def tick(self, time_s: float) -> list[Cap]:
        """What the controller, which was to be asked at ``time_s``, changes; to be carried out by ``set_cap``."""
        assert isinstance(self._router, ControlledRouter)
        # A timer may come a clock's tick too early.
        now = max(self.now(), time_s)
        with self._noting_defects():
            caps = self._router.on_tick(now)
        if self._log is not None:
            self._log.event("tick", now, (), caps)
        return caps

    def set_health(self, server_id: str, healthy: bool) -> None:
        """A server may be dispatched to, or not."""
        if self._router.servers[server_id].healthy != healthy:
            self._tell("health", self._router.set_health, server_id, healthy)

    def add_server(self, config: ServerConfig) -> None:
        """A server joins. Raises PolicyError where its id is taken."""
        now = self.now()
        self._act("add", now, (astuple(config),), self._router.add_server(now, config))

    def remove_server(self, server_id: str) -> None:
        """A server leaves, on which nothing is in flight. Raises PolicyError where something is."""
        now = self.now()
        self._act("remove", now, (server_id,), self._router.remove_server(now, server_id))

    def switch_policy(self, name: str, params: dict[str, object], seed: int, order: str | None = None) -> None:
        """Another policy decides from now on. Raises PolicyError where it cannot be made."""
        policy = self._watched(per_model([state.model for state in self.servers.values()], name, params, seed))
        queue_order = make_order(order) if order else None
        now, self.policy = self.now(), policy
        actions = self._router.switch_policy(now, policy, queue_order)
        self._act("policy", now, (name, params, seed, order), actions)

    # -- the router's answers ------------------------------------------------------------------------------------

    def _tell(self, event: str, router: Callable[..., Sequence[Action] | None], *arguments: object) -> None:
        now = self.now()
        with self._noting_defects():
            actions = router(now, *arguments) or ()
        self._act(event, now, arguments, actions)

    @contextmanager
    def _noting_defects(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._on_defect is not None:
                self._on_defect(error)
            raise

    def _act(self, event: str, now: float, arguments: Sequence[object], actions: Sequence[Action]) -> None:
        if self._log is not None:
            self._log.event(event, now, arguments, actions)
        for action in actions:
            match action:
                case Dispatch(request_id, server_id, attempt):
                    self._jobs[request_id].dispatch(server_id, attempt)
                case Refuse(request_id, reason):
                    self._jobs.pop(request_id).refuse(reason)
                case Fail(request_id, reason):
                    self._jobs.pop(request_id).fail(reason)
                case Abort(request_id, server_id):
                    self._jobs.pop(request_id).abort(server_id)

    def _watched(self, policy: Policy) -> Policy:
        return policy if self._on_decided is None else WatchedPolicy(policy, self._on_decided)
