"""One policy over one workload, in real time, and the result that it leaves."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from live.backends import Backend, BackendError, Facts
from live.clock import WallClock
from live.routing.air import Air, Timeouts
from live.routing.controlling import Controlling
from live.routing.driver import Driver
from live.routing.event_log import EventLog, RouterSetup, replay
from live.routing.fleet import Fleet, FleetSettings, Member
from policies.controllers import check_controller_needs
from policies.ledger import ServerReport
from simcore.cap_log import CapLog
from simcore.control import (
    PolicyTurn,
    check_turns,
    control_actions,
    controller_label,
    controller_of,
    oracle,
    policy_turns,
)
from simcore.errors import UserError
from simcore.fleet import server_configs, server_terms
from simcore.models import RequestModels, check_models
from simcore.records import RunResult
from simcore.request_faces import request_faces
from simcore.scenario import ControlAction, PolicySpec, Scenario
from simcore.workload import build_workload

from .books import Books
from .connecting import connected, not_reported
from .generator import Generator
from .prompts import PromptTokens
from .stopping import stopping_on_errors, stopping_on_interrupt, stopping_on_silence
from .tables import Counters, read_counters, server_frame
from .validity import Course, write_notes

__all__ = ["LiveOptions", "LiveRun", "Progress", "run_live"]

_MOST_CONNECTIONS = 64  # opened to each server before the first request

Progress = Callable[[Generator], None]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a run is carried out. ``speed`` is the emulators' own; real servers have 1. ``backends`` are the servers'
    kinds one by one, empty where all are of the kind ``backend``. A run ends where no server has been ready for
    ``silent_s``, seconds of the wall clock."""

    backend: str = "sglang"
    backends: tuple[str, ...] = ()
    api_key: str | None = None
    speed: float = 1.0
    max_attempts: int = 3
    flush: bool = True
    silent_s: float = 30.0
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What a run leaves: the result, and files to lie beside it. ``invalid`` says why it proves nothing, if it does;
    ``gave_up``: that is why it ended early."""

    result: RunResult
    files: tuple[Path, ...]
    invalid: str | None
    gave_up: bool


async def run_live(
    scenario: Scenario,
    spec: PolicySpec,
    seed: int,
    urls: Sequence[str],
    options: LiveOptions,
    folder: Path,
    on_progress: Progress,
) -> LiveRun:
    """Run one policy; files are written into ``folder``. Raises UserError and PolicyError before a request is sent, and
    at once what the policy raises in the run.

    On Ctrl-C, and where the servers are gone, the result so far comes back, marked ``interrupted``.
    """
    started = time.perf_counter()
    kinds = options.backends or (options.backend,) * len(urls)
    async with connected(urls, kinds, options.api_key, options.speed) as (backends, facts):
        with ExitStack() as stack:
            run = _Run(scenario, spec, seed, options, backends, facts, folder, stack)
            interrupted = await run.go(on_progress)
        return run.outcome(time.perf_counter() - started, interrupted=interrupted)


class _Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        scenario: Scenario,
        spec: PolicySpec,
        seed: int,
        options: LiveOptions,
        backends: list[Backend],
        facts: list[Facts],
        folder: Path,
        stack: ExitStack,
    ) -> None:
        self._scenario, self._spec, self._seed, self._options = scenario, spec, seed, options
        workload_seed, policy_seed, _ = np.random.SeedSequence(seed).spawn(3)
        workload = build_workload(scenario.workload, workload_seed, base_dir=scenario.base_dir)
        if len(workload) == 0:
            raise UserError(f"scenario {scenario.name}: the workload has no requests")
        served = [fact.model for fact in facts]
        check_models(scenario, served)
        self._sent_at_once = workload.sent_at_once
        models = RequestModels(workload, served)
        configs = server_configs(scenario, served)
        names = ("events.jsonl", "loads.jsonl", "decisions.jsonl", "meta_info.jsonl")
        self._paths = {name: folder / name for name in names}
        self._notes = folder / "live.json"
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in self._paths.values()]
        self._books = Books(*files[1:])
        self._clock = WallClock(options.speed)
        self._turns = policy_turns(scenario, spec, policy_seed)
        controller = controller_of(scenario)
        setup = RouterSetup(
            servers=tuple(configs),
            policy=spec.name,
            params=spec.params,
            seed=self._turns[0].seed,
            order=scenario.router.queue_order,
            queue_limit=scenario.router.queue_limit,
            max_attempts=options.max_attempts,
            controller=controller.name if controller is not None else "",
            controller_params=controller.params if controller is not None else {},
        )
        self._controller = setup.make_controller()
        if self._controller is not None:
            check_controller_needs(self._controller, not_reported(backends))
        self._driver = Driver(
            setup, lambda: self._clock.now, log=EventLog(files[0], setup), on_decided=self._books.decided
        )
        settings = FleetSettings(report_interval_s=scenario.router.report_interval_s / options.speed)
        self._fleet = Fleet(self._driver, settings, on_report=self._on_report, speed=options.speed)
        for config, backend, fact in zip(configs, backends, facts, strict=True):
            self._fleet.join(config.server_id, backend, fact, config.max_running_requests)
        policies = [turn.make(served) for turn in self._turns]
        faces = request_faces(scenario, workload, models, policies)
        check_turns(scenario, policies, faces.missing | not_reported(backends))
        self._oracle = oracle(scenario, policies)
        self._air = Air(self._driver, self._fleet, options.timeouts, random.Random(seed))
        self._caps = CapLog(self._driver.servers)
        self._controlling = Controlling(self._air, self._clock, self._caps.add)
        prompts = PromptTokens(workload, seed)
        self.generator = Generator(self._air, self._clock, workload, faces, prompts, self._books, models)
        self._counters: dict[str, Counters] = {}
        self._silent: list[str] = []

    async def go(self, on_progress: Progress) -> bool:
        """The run itself; returns whether it ended early."""
        members = list(self._fleet.members.values())
        if self._options.flush:
            await self._flush(members)
        before = {member.server_id: await read_counters(member) for member in members}
        await self._open_connections(members)
        self._clock.restart()
        for action, turn in control_actions(self._scenario, self._turns):
            self._clock.at(action.at_s, self._on_control, (action, turn))
        ticker = asyncio.get_running_loop().create_task(_tick(on_progress, self.generator))
        try:
            with (
                stopping_on_interrupt(self.generator) as interrupted,
                stopping_on_errors(self.generator) as errors,
                stopping_on_silence(self.generator, self._fleet, self._options.silent_s) as self._silent,
            ):
                async with self._fleet.watching():
                    if self._controller is not None:
                        self._controlling.start(self._controller)
                    await self.generator.run()
                    self._controlling.stop()
                    if errors:
                        raise errors[0]
                    await self._air.settle()
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
        on_progress(self.generator)
        for member in members:
            with suppress(aiohttp.ClientError, BackendError, OSError, TimeoutError):
                now = await read_counters(member)
                start = before[member.server_id]
                self._counters[member.server_id] = {name: now[name] - start.get(name, 0.0) for name in now}
        self._duration_s = self._clock.now
        return bool(interrupted or self._silent)

    async def _open_connections(self, members: list[Member]) -> None:
        """All clients of a closed loop begin at once, and connecting takes as long as sending."""
        connections = min(self._sent_at_once, _MOST_CONNECTIONS)
        for origin in (member.backend.origin for member in members):
            try:
                await origin.prepare(connections)
            except (OSError, TimeoutError) as error:
                detail = str(error) or "timed out"
                raise UserError(f"{origin.url} takes no {connections} connections at once: {detail}") from error

    async def _flush(self, members: list[Member]) -> None:
        try:
            await asyncio.gather(*(member.backend.flush() for member in members))
        except BackendError as error:
            raise UserError(f"{error.args[0].strip()}; --no-flush leaves the caches as they are") from error

    def outcome(self, wall_s: float, *, interrupted: bool) -> LiveRun:
        """The result; the event log is closed by now, and is put to its proof."""
        members = list(self._fleet.members.values())
        requests = self.generator.recorder.frame([member.server_id for member in members])
        proof = replay(self._paths["events.jsonl"])
        if proof.differences:
            raise RuntimeError("a replay of the event log decides differently: " + "; ".join(proof.differences))
        course = Course(self.generator.lateness(), self._counters, self._options.speed, self._gone())
        write_notes(self._notes, course, members, proof)
        warnings = [f"invalid: {course.invalid}"] if course.invalid else []
        if any(member.facts.is_emulator for member in members):
            warnings.append("the servers were emulators: their times are a profile's, not a GPU's")
        result = RunResult(
            scenario=self._scenario.name,
            policy=self._spec.label,
            seed=self._seed,
            kind="live",
            requests=requests,
            servers=server_frame(
                members, self._counters, self._books.peaks, requests, server_terms(self._scenario, len(members))
            ),
            timeline=self._books.timeline_frame(),
            itl=self._books.itl_frame(),
            duration_s=self._duration_s,
            wall_s=wall_s,
            interrupted=interrupted,
            warnings=warnings,
            oracle=self._oracle,
            caps=self._caps.frame(),
            controller=controller_label(self._scenario),
        )
        return LiveRun(result, (*self._paths.values(), self._notes), course.invalid, gave_up=course.gone is not None)

    def _gone(self) -> str | None:
        if not self._silent:
            return None
        urls = [one.backend.origin.url for one in self._fleet.members.values() if one.facts.model in self._silent]
        return f"no server was ready for {self._options.silent_s:g} s: {', '.join(urls)}"

    def _on_report(self, member: Member, report: ServerReport) -> None:
        self._books.report(member, report, self._driver.servers[member.server_id].in_flight_requests)

    def _on_control(self, _: float, change: tuple[ControlAction, PolicyTurn | None]) -> None:
        action, turn = change
        if turn is not None:
            order = self._scenario.router.queue_order
            self._driver.switch_policy(turn.spec.name, turn.spec.params, turn.seed, order)
            return
        for member in list(self._fleet.members.values()):
            if action.server in (None, member.server_id):
                self._fleet.drain(member.server_id, draining=bool(action.draining))


async def _tick(on_progress: Progress, generator: Generator) -> None:
    while True:
        on_progress(generator)
        await asyncio.sleep(0.25)
