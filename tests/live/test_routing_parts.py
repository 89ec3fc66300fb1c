"""The parts between router and servers, each by itself."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from live.backends.means import GrowingMeans, GrowingRate
from live.routing.breaker import Breaker
from live.routing.driver import Driver
from live.routing.event_log import EventLog, RouterSetup, replay
from policies import PolicyError, RequestView
from policies.ledger import ServerConfig, ServerReport
from simcore.errors import UserError

SETUP = RouterSetup(
    servers=tuple(ServerConfig(f"s{index}", "m", 2) for index in range(3)),
    policy="power_of_two",
    params={},
    seed=7,
    queue_limit=2,
    max_attempts=2,
)


class Clock:
    """A time that each look moves on."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += math.pi / 100
        return self.at


class Job:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def dispatch(self, server_id: str, attempt: int) -> None:
        self.told.append((server_id, attempt))

    def refuse(self, reason: str) -> None:
        self.told.append(reason)

    fail = abort = refuse


def driven(setup: RouterSetup = SETUP) -> tuple[Driver, io.StringIO]:
    stream = io.StringIO()
    return Driver(setup, Clock(), log=EventLog(stream, setup)), stream


def arrive(driver: Driver, request_id: int) -> Job:
    job = Job()
    view = RequestView(request_id, "m", 10 + request_id, 20, driver.now(), (1, 2**62), None, 0, {"ttft_s": 0.5})
    driver.arrive(view, job)
    return job


def busy_log() -> str:
    """A log with every kind of event."""
    driver, stream = driven()
    jobs = [arrive(driver, request_id) for request_id in range(9)]
    assert jobs[8].told == ["the router's queue is full"]
    driver.first_token(0)
    driver.report("s1", ServerReport(0.1, 3, 1, 100, 1000, 55.5, 0.02, None))
    driver.failure(0, "lost", retry=True)
    driver.failure(1, "lost", retry=False)
    driver.finish(2)
    driver.cancel(3)
    driver.set_cap("s0", 5)
    driver.set_health("s2", False)
    driver.set_health("s2", False)
    driver.add_server(ServerConfig("s9", "m", None, 4.0, True))
    assert (driver.servers["s9"].weight, driver.servers["s9"].remote) == (4.0, True)
    driver.switch_policy("shortest_job_first", {"prompt_weight": 0.1}, 3)
    for request_id in range(20, 30):
        arrive(driver, request_id)
    driver.switch_policy("random", {}, 4, "sjf")
    for request_id in range(30, 36):
        arrive(driver, request_id)
    return stream.getvalue()


def test_a_fresh_router_told_the_same_decides_the_same(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text(busy_log())
    proof = replay(log)
    assert proof.differences == ()
    assert proof.decisions >= 20
    assert {json.loads(line)["e"] for line in log.read_text().splitlines()[1:]} == {
        "arrival", "first_token", "finish", "failure", "cancel", "report", "cap", "health", "add", "policy",
    }  # fmt: skip


def test_a_replay_knows_the_servers_weights_and_who_is_remote(tmp_path: Path) -> None:
    servers = (ServerConfig("s0", "m", None, 8.0), ServerConfig("s1", "m", None, 1.0, True))
    for policy in ("device_aware_weighted", "local_first"):
        driver, stream = driven(replace(SETUP, servers=servers, policy=policy))
        for request_id in range(20):
            arrive(driver, request_id)
        log = tmp_path / "events.jsonl"
        log.write_text(stream.getvalue())
        assert replay(log).differences == ()
        # Some 8 of 9 where the weight is 8, and all where the other is somebody else's.
        assert driver.servers["s0"].in_flight_requests == (17 if policy == "device_aware_weighted" else 20)


def test_a_decision_that_was_another_is_found(tmp_path: Path) -> None:
    lines = busy_log().splitlines()
    event = json.loads(lines[3])
    event["a"][0][2] = "s1" if event["a"][0][2] != "s1" else "s0"
    log = tmp_path / "events.jsonl"
    log.write_text("\n".join([*lines[:3], json.dumps(event), *lines[4:]]))
    assert "line 4" in replay(log).differences[0]


def test_a_file_that_is_no_log_is_said(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_text("hello\n")
    with pytest.raises(UserError, match="not an event log"):
        replay(log)
    log.write_text('{"version": 99}\n')
    with pytest.raises(UserError, match="version is 99"):
        replay(log)


def test_a_server_with_requests_is_not_removed() -> None:
    driver, _ = driven()
    job = arrive(driver, 0)
    with pytest.raises(PolicyError, match="in flight"):
        driver.remove_server(job.told[0][0])
    driver.finish(0)
    driver.remove_server(job.told[0][0])
    assert len(driver.servers) == 2
    with pytest.raises(PolicyError, match="already"):
        driver.add_server(ServerConfig("s0" if job.told[0][0] != "s0" else "s1", "m"))


def test_switching_the_policy_drops_nothing_and_takes_its_order() -> None:
    setup = RouterSetup((ServerConfig("s0", "m", 1),), "round_robin", {}, 0)
    driver, _ = driven(setup)
    jobs = {}
    for request_id, expected in enumerate((5, 50, 10, 30)):
        jobs[request_id] = Job()
        driver.arrive(RequestView(request_id, "m", 1, expected, driver.now()), jobs[request_id])
    driver.switch_policy("shortest_job_first", {}, 1)
    order = []
    for _ in range(3):
        running = next(request_id for request_id, job in jobs.items() if job.told and request_id not in order)
        order.append(running)
        driver.finish(running)
    # The first was under way; the rest go by what is expected of them.
    assert order == [0, 2, 3]
    assert jobs[1].told == [("s0", 1)]


def test_a_breaker_opens_tries_one_and_closes() -> None:
    breaker = Breaker(failures=2, open_s=10.0, successes=2)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.state == "closed"
    breaker.failed(2.0)
    assert breaker.state == "open"
    breaker.tick(11.9)
    assert breaker.state == "open"
    breaker.tick(12.0)
    assert breaker.state == "half_open"
    breaker.succeeded()
    breaker.failed(13.0)
    assert breaker.state == "open"
    breaker.tick(23.0)
    breaker.succeeded()
    breaker.succeeded()
    assert breaker.state == "closed"


def test_means_are_of_what_is_new() -> None:
    means, rate = GrowingMeans(), GrowingRate()
    assert [means.look(8, 7), means.look(12, 9), means.look(12, 9), means.look(18, 10)] == [None, 2, 2, 6]
    # A server that began anew counts from nothing.
    assert [means.look(3, 2), means.look(8, 3)] == [6, 5]
    assert [rate.look(1, 100), rate.look(3, 150), rate.look(4, 10)] == [0, 25, 0]
