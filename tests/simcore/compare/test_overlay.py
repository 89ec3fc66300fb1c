"""Time series laid over each other: what each span holds."""

import numpy as np
import pytest
from support.results import make_result

from simcore.compare.overlay import _by_arrival, _present, _sampled, overlays
from simcore.compare.side import Side
from simcore.metrics import summarise
from simcore.records import RunResult


def side(result: RunResult, label: str = "it") -> Side:
    return Side.make(label, result, summarise(result, {}, 0.0))


@pytest.fixture
def run() -> Side:
    """60 s in 60 spans: one request waits from 10 to 12 and runs to 20.5; another is still there at the end."""
    rows = [
        {"arrived_at": 10.0, "dispatched_at": 12.0, "first_token_at": 13.0, "finished_at": 20.5},
        {"arrived_at": 10.5, "dispatched_at": 11.0, "status": "unfinished"},
    ]
    return side(make_result(rows, duration_s=60.0))


EDGES = np.linspace(0, 60, 61)


def test_requests_between_two_times_are_counted_for_as_long_as_they_are_there(run: Side) -> None:
    waiting, running = (
        _present(*ends)(run, EDGES) for ends in [("arrived_at", "dispatched_at"), ("dispatched_at", "finished_at")]
    )

    assert waiting[9:13].tolist() == [0.0, 1.5, 1.0, 0.0]
    assert running[10:14].tolist() == [0.0, 1.0, 2.0, 2.0]
    assert running[20:22].tolist() == [1.5, 1.0]
    assert running[59] == 1.0


def test_latencies_are_means_by_arrival(run: Side) -> None:
    ttft = _by_arrival("ttft_s")(run, EDGES)

    assert ttft[10] == 3.0
    assert np.isnan(np.delete(ttft, 10)).all()


def test_samples_are_added_over_servers(run: Side) -> None:
    two = make_result([{"arrived_at": 0.0}], servers=[{}, {"server_id": "s1"}], duration_s=30.0)
    running = _sampled("running")(side(two), EDGES)

    assert running[:29].tolist() == [6.0] * 29
    assert np.isnan(running[31:]).all()


def test_every_run_is_drawn_in_every_plot(run: Side) -> None:
    drawn = overlays([run, side(make_result([{"arrived_at": 0.0, "finished_at": 3.0}]), "other")])

    assert list(drawn) == ["cdf-ttft", "cdf-tpot", "cdf-e2e", "cdf-router-wait", "over-time"]
    assert "other" in drawn["over-time"]
