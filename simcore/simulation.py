"""One run: tells the router of what happens at clients and servers, and carries out what it decides."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from policies import Policy
from policies.controllers import ControlledRouter, Controller, make_controller
from policies.ledger import ServerReport
from policies.needs import needs_reports
from policies.router import Abort, Action, Dispatch, Fail, Refuse

from .cap_log import CapLog
from .clients import Clients
from .clock import Clock
from .control import (
    PolicyTurn,
    check_turns,
    control_actions,
    controller_label,
    controller_of,
    oracle,
    policy_turns,
    queue_order,
    router_of,
)
from .errors import UserError
from .fleet import build_fleet, fleet_profiles
from .hold_watch import HoldWatch
from .models import RequestModels, check_models
from .observer import Reporter, Sampler
from .recorder import RequestRecorder
from .records import Status
from .remote_profile import own_profiles
from .request_faces import request_faces
from .scenario import ControlAction, PolicySpec, Scenario
from .server.interface import QUEUE_IS_FULL, RATE_LIMITED, Server
from .server.remote import RemoteServer
from .server.request import ServerRequest
from .workload import Workload, build_workload

__all__ = ["Progress", "Simulation"]

_TURNED_AWAY = (QUEUE_IS_FULL, RATE_LIMITED)

Progress = Callable[[float, int], None]


class Simulation:
    """The driver of one run, on SimPy's clock. Raises UserError and PolicyError as it is made."""

    def __init__(
        self,
        scenario: Scenario,
        spec: PolicySpec,
        seed: int,
        *,
        draw: int,
        exact_steps: bool,
        on_progress: Progress | None,
        workload: Workload | None,
    ) -> None:
        workload_seed, policy_seed, *server_seeds = np.random.SeedSequence(seed).spawn(3 + draw)
        if workload is None:
            workload = build_workload(scenario.workload, workload_seed, base_dir=scenario.base_dir)
        if len(workload) == 0:
            raise UserError(f"scenario {scenario.name}: the workload has no requests")
        self._scenario = scenario
        profiles = fleet_profiles(scenario)
        turns = policy_turns(scenario, spec, policy_seed)
        self._models = [profile.model for profile in profiles]
        check_models(scenario, self._models)
        policies = [turn.make(self._models) for turn in turns]
        self.clock = Clock()
        given = controller_of(scenario)
        controller = make_controller(given.name, given.params) if given is not None else None
        self.controller_label = controller_label(scenario)
        self.wants_first_tokens = any(type(policy).on_first_token is not Policy.on_first_token for policy in policies)
        self.wants_first_tokens |= controller is not None and controller.sees_first_tokens
        self._polled = any(map(needs_reports, policies)) or bool(controller and controller.needs)
        self.members = build_fleet(
            self.clock, self, profiles, server_seeds[draw], exact_steps=exact_steps, reported=self._polled
        )
        models = RequestModels(workload, self._models)
        self.recorder = RequestRecorder(workload, models)
        self._by_id = {member.server.server_id: member for member in self.members}
        self._overheads = {member.server.server_id: member.overheads for member in self.members}
        self._router = router_of(scenario, policies[0], self._models, controller)
        self.caps = CapLog(self._router.servers)
        self._rooms_due: set[str] = set()
        # Chosen once: where no server has a rate limit, a request pays nothing for those that have one.
        limited = any(state.rate is not None for state in self._router.servers.values())
        self._carry_out = self._dispatch_and_watch if limited else self._dispatch
        self._clients = Clients(self.clock, workload, self._send)
        self._requests = request_faces(scenario, workload, models, policies)
        self._flights: dict[int, ServerRequest] = {}
        # Bound once: that costs more than the call.
        self._finished = self._on_finished
        self._total = len(workload)
        self._on_progress = on_progress
        self._progress_every = max(self._total // 200, 1)
        missing = self._requests.missing
        if len(own_profiles(profiles)) < len(profiles):
            # A remote API does not tell of its load.
            missing |= set(ServerReport._fields) - {"reported_at"}
        check_turns(scenario, policies, missing)
        self.oracle = oracle(scenario, policies)
        interval_s = scenario.router.report_interval_s if self._polled else None
        if interval_s is not None:
            delay_s, age_s = scenario.router.report_delay_s, scenario.router.report_age_s
            Reporter(self.clock, self.members, interval_s, delay_s, age_s, self._on_report)
        self._hold_watch = HoldWatch(self._router, interval_s)
        self.sampler = Sampler(
            self.clock, self.members, self._router.servers, _sample_interval_s(workload), self._watch
        )
        self._schedule(control_actions(scenario, turns), controller)

    def run(self) -> bool:
        """From time 0 to the end of the last request; returns whether it was interrupted."""
        self._clients.start()
        try:
            with _rare_collections():
                self.clock.run_calls()
        except KeyboardInterrupt:
            return True
        return False

    def _schedule(self, actions: list[tuple[ControlAction, PolicyTurn | None]], controller: Controller | None) -> None:
        moments = controller.moments if controller is not None else ()
        self._actions_left = len(actions) + len(moments)
        for moment in moments:
            self.clock.at(moment, self._on_moment)
        for action, turn in actions:
            self.clock.at(action.at_s, self._on_control, (action, turn))
        if controller is not None and controller.interval_s is not None:
            self.clock.at(0.0, self._on_interval, controller.interval_s)

    # -- from the clients ----------------------------------------------------------------------------------------

    def _send(self, request_id: int, now: float) -> None:
        self.recorder.arrived_at[request_id] = now
        self._act(self._router.on_arrival(now, self._requests.view(request_id, now)), now)

    # -- from the router -----------------------------------------------------------------------------------------

    def _act(self, actions: Sequence[Action], now: float) -> None:
        for action in actions:
            match action:
                case Dispatch():
                    self._carry_out(action, now)
                case Refuse(request_id, reason):
                    self._give_up(request_id, "rejected", reason, now)
                case Fail(request_id, reason):
                    self._flights.pop(request_id, None)
                    self._give_up(request_id, "rejected" if reason in _TURNED_AWAY else "failed", reason, now)
                case Abort(request_id, server_id):
                    self._by_id[server_id].server.cancel(self._flights.pop(request_id), now)

    def _dispatch(self, action: Dispatch, now: float) -> None:
        request_id, server_id, attempt = action
        member, recorder = self._by_id[server_id], self.recorder
        recorder.dispatched_at[request_id] = now
        recorder.server[request_id] = member.index
        recorder.attempts[request_id] = attempt
        request = self._requests.at_server(request_id, member, now)
        if request.prompt_tokens > member.max_prompt_tokens:
            limit = member.max_prompt_tokens
            reason = f"the prompt of {request.prompt_tokens} tokens is longer than the server's limit of {limit}"
            self.clock.at(now, self._on_failed, (request_id, reason))
            return
        self._flights[request_id] = request
        member.server.submit(request, now)

    def _dispatch_and_watch(self, action: Dispatch, now: float) -> None:
        self._dispatch(action, now)
        self._watch_limit(action.server_id, now)

    def _watch_limit(self, server_id: str, now: float) -> None:
        """Where a server's rate limit is used up, tell the router when it leaves room again."""
        state = self._router.servers[server_id]
        if not state.in_budget and state.rate is not None and server_id not in self._rooms_due:
            self._rooms_due.add(server_id)
            self.clock.at(max(state.rate.opens_at, now), self._on_room, server_id)

    def _on_room(self, now: float, server_id: str) -> None:
        self._rooms_due.discard(server_id)
        self._act(self._router.on_room(now, server_id), now)
        self._watch_limit(server_id, now)

    def _on_failed(self, now: float, failure: tuple[int, str]) -> None:
        request_id, reason = failure
        self._act(self._router.on_failure(now, request_id, reason, retry=False), now)

    # -- from the servers (Listener) -----------------------------------------------------------------------------

    def first_token(self, server: Server, request: ServerRequest, now: float) -> None:
        """See ``Listener``."""
        self.clock.at(now + self._overheads[server.server_id].egress_s, self._on_first_token, request)

    def ended(self, server: Server, request: ServerRequest, now: float) -> None:
        """See ``Listener``."""
        overheads = self._overheads[server.server_id]
        request.first_token_at += overheads.egress_s
        self.clock.at(now + overheads.back_s(request.output_tokens), self._finished, request)

    def failed(self, server: Server, request: ServerRequest, reason: str, now: float) -> None:
        """See ``Listener``."""
        if reason == RATE_LIMITED and self._router.servers[server.server_id].rate is not None:
            self.clock.at(now, self._on_limited, (server, request.request_id))
        else:
            self.clock.at(now, self._on_failed, (request.request_id, reason))

    def _on_limited(self, now: float, refused: tuple[RemoteServer, int]) -> None:
        server, request_id = refused
        del self._flights[request_id]
        self._act(self._router.on_limited(now, request_id, server.room_in_s(now)), now)
        self._watch_limit(server.server_id, now)

    def _on_first_token(self, now: float, request: ServerRequest) -> None:
        self._router.on_first_token(now, request.request_id)

    def _on_finished(self, now: float, request: ServerRequest) -> None:
        request_id = request.request_id
        del self._flights[request_id]
        self.recorder.finish(request, now)
        if self._requests.learns:
            self._requests.answered(request_id, request.output_tokens)
        if actions := self._router.on_finish(now, request_id):
            self._act(actions, now)
        self._clients.answered(request_id, now)
        self._count_end()

    def _give_up(self, request_id: int, status: Status, reason: str, now: float) -> None:
        self.recorder.end(request_id, status, reason)
        for turn in self._clients.gave_up(request_id, now):
            self.recorder.end(turn, "cancelled", "the session's turn before it was not answered")
        self._count_end()

    def _count_end(self) -> None:
        ended = self.recorder.ended
        if self._on_progress is not None and (ended % self._progress_every == 0 or ended == self._total):
            self._on_progress(ended / self._total, ended)
        if ended == self._total:
            self.clock.stop()

    # -- at given times ------------------------------------------------------------------------------------------

    def _on_report(self, server_id: str, report: ServerReport, now: float) -> None:
        self._act(self._router.on_report(now, server_id, report), now)

    def _on_control(self, now: float, change: tuple[ControlAction, PolicyTurn | None]) -> None:
        self._actions_left -= 1
        action, turn = change
        router = self._router
        if turn is not None:
            policy = turn.make(self._models)
            self._act(router.switch_policy(now, policy, queue_order(self._scenario, policy)), now)
            return
        for server_id in [action.server] if action.server else list(self._by_id):
            self._act(router.set_health(now, server_id, not action.draining), now)

    def _on_moment(self, now: float, _: None) -> None:
        self._actions_left -= 1
        self._set_caps(now)

    def _on_interval(self, now: float, interval_s: float) -> None:
        self._set_caps(now)
        self.clock.at(now + interval_s, self._on_interval, interval_s)

    def _set_caps(self, now: float) -> None:
        assert isinstance(self._router, ControlledRouter)
        for server_id, cap in self._router.on_tick(now):
            self.caps.add(now, server_id, cap)
            self._act(self._router.set_cap(now, server_id, cap), now)

    def _watch(self, now: float) -> None:
        left = self._flights or self._actions_left or self._rooms_due
        self._hold_watch.check(now, more_to_come=bool(left) or not self._clients.done_sending)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for unreachable cycles less often: what is made for a request goes by its reference count."""
    before = gc.get_threshold()
    gc.set_threshold(1_000_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _sample_interval_s(workload: Workload) -> float:
    """A three-hundredth of the time over which requests arrive; a closed loop starts fine and is thinned."""
    return max(float(np.nanmax(workload.arrival_s)) / 300, 0.01)
