"""Several policies and seeds over one scenario, in parallel processes, stoppable with what they have."""

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing import resource_tracker
from types import FrameType

import joblib

from simcore.engine import simulate
from simcore.metrics import observe, summarise
from simcore.records import RunResult
from simcore.report import MeasuredRun
from simcore.scenario import PolicySpec, Scenario

from .board import Board
from .check import nothing_to_measure

__all__ = ["Job", "Outcome", "jobs_of", "run_jobs", "stop_on_interrupt"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a policy and a seed."""

    policy: PolicySpec
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. The times are aware and in UTC."""

    job: Job
    result: RunResult
    run: MeasuredRun
    started_at: datetime
    finished_at: datetime


def jobs_of(scenario: Scenario, seeds: Sequence[int]) -> list[Job]:
    """Every policy with every seed, seed after seed: what is interrupted has compared the earlier seeds fully."""
    return [Job(policy, seed) for seed in seeds for policy in scenario.policies]


def run_jobs(
    scenario: Scenario, jobs: Sequence[Job], board: Board, *, processes: int, exact_steps: bool
) -> Iterator[Outcome]:
    """The outcomes in the order of the jobs, each as soon as it is there; a board that is stopped ends the jobs that
    run.

    Those come out marked ``interrupted``, and those not begun not at all. Raises what a job raised.
    """
    parallel = joblib.Parallel(n_jobs=min(processes, len(jobs)), return_as="generator", batch_size=1)
    calls = (joblib.delayed(_run)(scenario, job, number, board, exact_steps) for number, job in enumerate(jobs))
    with _processes_without_interrupts(len(jobs) > 1 and processes > 1):
        outcomes = parallel(calls)
    for outcome in outcomes:
        if outcome is not None:
            yield outcome


@contextmanager
def stop_on_interrupt(board: Board) -> Iterator[None]:
    """Within the block the first Ctrl-C stops the board; the next one raises KeyboardInterrupt as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        board.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _processes_without_interrupts(wanted: bool) -> Iterator[None]:
    """Processes started in the block never see Ctrl-C, which a terminal sends to all, nor SIGTERM, which ``timeout``
    does: only the board stops them."""
    if not wanted:
        yield
        return
    # Its start unblocks the signals, and would come between.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(scenario: Scenario, job: Job, number: int, board: Board, exact_steps: bool) -> Outcome | None:
    if board.stopped:
        return None

    def on_progress(share: float, _: int) -> None:
        board.report(number, share)
        if board.stopped:
            raise KeyboardInterrupt

    started_at = datetime.now(UTC)
    with _logged() as messages:
        result = simulate(scenario, job.policy, job.seed, exact_steps=exact_steps, on_progress=on_progress)
    result = replace(result, warnings=[*messages, *result.warnings])
    board.report(number, 1)
    slo = scenario.slo.bounds()
    run = MeasuredRun(summarise(result, slo, scenario.warmup_s), observe(result, slo, scenario.warmup_s))
    if not run.summary.measured_requests and not result.interrupted:
        raise nothing_to_measure(scenario, result.requests["arrived_at"].max())
    return Outcome(job, result, run, started_at, datetime.now(UTC))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """The warnings that simcore logs in the block: they belong to the run, not among the progress on the screen."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("simcore"), Collect(logging.WARNING)
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
