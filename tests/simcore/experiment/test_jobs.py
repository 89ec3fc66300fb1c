import logging
import os
import signal
import threading
from pathlib import Path

import pytest
from support.experiment import small_scenario

from simcore.errors import UserError
from simcore.experiment import jobs
from simcore.experiment.board import Board
from simcore.experiment.jobs import Job, Outcome, jobs_of, run_jobs, stop_on_interrupt
from simcore.scenario import PolicySpec, Scenario


def board_of(folder: Path, count: int) -> Board:
    return Board.create(folder / "board", count)


def outcomes(folder: Path, scenario: Scenario, *seeds: int, processes: int = 1) -> list[Outcome]:
    wanted = jobs_of(scenario, seeds)
    board = board_of(folder, len(wanted))
    return list(run_jobs(scenario, wanted, board, processes=processes, exact_steps=False))


def test_jobs_go_seed_after_seed() -> None:
    """So that what is interrupted has compared the earlier seeds fully."""
    first, second = PolicySpec(name="random"), PolicySpec(name="least_request")

    assert jobs_of(small_scenario(), [5, 7]) == [Job(first, 5), Job(second, 5), Job(first, 7), Job(second, 7)]


@pytest.mark.parametrize("processes", [1, 2])
def test_outcomes_come_in_the_order_of_the_jobs(tmp_path: Path, processes: int) -> None:
    found = outcomes(tmp_path, small_scenario(), 0, 1, processes=processes)

    assert [(one.run.summary.policy, one.run.summary.seed) for one in found] == [
        ("random", 0),
        ("least_request", 0),
        ("random", 1),
        ("least_request", 1),
    ]
    for one in found:
        assert one.job.policy.label == one.result.policy
        assert one.started_at <= one.finished_at
        assert not one.result.interrupted


def test_the_board_shows_how_far_it_is(tmp_path: Path) -> None:
    scenario = small_scenario()
    wanted = jobs_of(scenario, [0])
    board = board_of(tmp_path, len(wanted))
    done = [board.jobs_done for _ in run_jobs(scenario, wanted, board, processes=1, exact_steps=False)]

    assert done == [1, 2]


def test_a_stopped_board_begins_nothing(tmp_path: Path) -> None:
    scenario = small_scenario()
    board = board_of(tmp_path, 2)
    board.stop()

    assert list(run_jobs(scenario, jobs_of(scenario, [0]), board, processes=1, exact_steps=False)) == []


def test_a_board_stopped_in_between_ends_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small_scenario()
    board = board_of(tmp_path, 2)
    report = Board.report

    def stop_half_way(self: Board, job: int, share: float) -> None:
        report(self, job, share)
        if share >= 0.5:
            self.stop()

    monkeypatch.setattr(Board, "report", stop_half_way)
    (only,) = run_jobs(scenario, jobs_of(scenario, [0]), board, processes=1, exact_steps=False)

    assert only.result.interrupted
    assert only.run.summary.interrupted
    ended = (only.result.requests["status"] == "finished").mean()
    assert 0.5 <= ended < 0.6


def test_a_run_that_measures_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing is left to measure: the last .* 20 s, and warmup_s is 30"):
        outcomes(tmp_path, small_scenario("warmup_s=30"), 0)


def test_what_a_run_warns_of_belongs_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    simulate = jobs.simulate

    def warn(*arguments: object, **options: object) -> object:
        logging.getLogger("simcore.workload").warning("3 entries were left out")
        return simulate(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs, "simulate", warn)
    (only, _) = outcomes(tmp_path, small_scenario(), 0)

    assert only.run.summary.warnings == ["3 entries were left out"]
    assert caplog.records == [], "it would come between the lines of the progress bar"


def test_the_first_interrupt_stops_the_board_and_the_next_is_as_usual(tmp_path: Path) -> None:
    board, before = board_of(tmp_path, 1), signal.getsignal(signal.SIGINT)
    with stop_on_interrupt(board):
        os.kill(os.getpid(), signal.SIGINT)
        assert board.stopped
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

    assert signal.getsignal(signal.SIGINT) is before


def test_elsewhere_than_in_the_main_thread_interrupts_are_left_alone(tmp_path: Path) -> None:
    board = board_of(tmp_path, 1)
    before = signal.getsignal(signal.SIGINT)
    inside: list[object] = []

    def look() -> None:
        with stop_on_interrupt(board):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()

    assert inside == [before]
