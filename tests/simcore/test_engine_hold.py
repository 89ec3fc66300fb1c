"""A policy that holds the queue: it is asked again when something happens, and told off when nothing can."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.engine import First, answering, busy, column, fleet, replay, run, scenario

from policies import ClusterView, Decision, Hold, PolicyError, RequestView, Route


def test_holding_for_ever_is_an_error_and_no_endless_run(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"policy answers holds 2 requests at .* nothing is left to happen"):
        run(busy(tmp_path), answering(Hold()))


@contextmanager
def seconds(limit_s: float) -> Iterator[None]:
    """Interrupts what runs for longer."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_holding_for_ever_is_an_error_where_clients_wait_for_it(tmp_path: Path) -> None:
    """The held request's end would send the next one, and does not come."""
    scene = scenario(fleet(tmp_path), replay(tmp_path, [(0, 9, 1), (0, 9, 1)], max_concurrency=1))
    with seconds(2), pytest.raises(PolicyError, match="nothing is left to happen"):
        run(scene, answering(Hold()))


def test_holding_for_ever_is_an_error_where_reports_come(tmp_path: Path) -> None:
    """Servers that do nothing report the same again and again."""
    polled = type("Polled", (answering(Hold()),), {"needs": frozenset({"running_requests"})})
    with seconds(2), pytest.raises(PolicyError, match="nothing is left to happen"):
        run(busy(tmp_path), polled)


def test_holding_until_a_cap_is_raised_is_fine(tmp_path: Path) -> None:
    class Waiting(First):
        name = "waiting"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            return Hold() if cluster.servers[0].max_running_requests == 1 else Route("s0")

    control = [{"at_s": 5.0, "max_running_requests": 2}]
    result = run(busy(tmp_path, router={"max_running_requests": 1}, control=control), Waiting)
    assert column(result, "dispatched_at") == [5.0, 5.0]


def test_holding_until_a_request_ends_is_fine(tmp_path: Path) -> None:
    class Patient(First):
        name = "patient"

        def choose(self, request: RequestView, cluster: ClusterView) -> Decision:
            busy = any(server.in_flight_requests for server in cluster.servers)
            return Hold() if busy else Route("s0")

    result = run(busy(tmp_path), Patient)
    assert column(result, "dispatched_at") == [0, column(result, "finished_at")[0]]
