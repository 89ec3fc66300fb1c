"""The model of a remote API, by hand: half a second to the first token, then ten a second."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from support.remote import api

from simcore.clock import Clock
from simcore.server.interface import RATE_LIMITED, Server
from simcore.server.remote import RemoteServer
from simcore.server.request import ServerRequest


@dataclass
class Heard:
    """A listener that writes down."""

    wants_first_tokens: bool = True
    firsts: dict[int, float] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def first_token(self, server: Server, request: ServerRequest, now: float) -> None:
        self.firsts[request.request_id] = now

    def ended(self, server: Server, request: ServerRequest, now: float) -> None:
        self.ends[request.request_id] = now

    def failed(self, server: Server, request: ServerRequest, reason: str, now: float) -> None:
        self.refused.append((request.request_id, reason))


def bench(*, seed: int = 0, exact_steps: bool = False, **fields: Any) -> tuple[Clock, Heard, RemoteServer]:
    clock, heard = Clock(), Heard()
    rng = np.random.default_rng(seed)
    return clock, heard, RemoteServer(clock, "s0", heard, api(**fields), exact_steps=exact_steps, rng=rng)


def send(clock: Clock, server: RemoteServer, request_id: int, at: float, prompt: int = 100, output: int = 11) -> None:
    request = ServerRequest(
        request_id, [(2 * request_id, 0, prompt)], prompt, output, output, 2 * request_id + 1, at, ignore_eos=True
    )
    clock.at(at, lambda now, _: server.submit(request, now))


def test_a_delay_and_then_one_speed() -> None:
    clock, heard, server = bench()
    send(clock, server, 0, at=1.0)
    send(clock, server, 1, at=1.0, output=1)
    clock.run_calls()
    assert heard.firsts == {0: 1.5, 1: 1.5}
    assert heard.ends == {0: 2.5, 1: 1.5}, "ten more tokens at ten a second; none for the other"


def test_a_hundred_answers_are_as_fast_as_one() -> None:
    clock, heard, server = bench()
    for number in range(100):
        send(clock, server, number, at=0.0)
    clock.run_calls()
    assert set(heard.ends.values()) == {1.5}
    assert server.telemetry.peak_running == 100


def test_the_load_tells_of_tokens_as_they_come() -> None:
    clock, _, server = bench()
    send(clock, server, 0, at=0.0)
    seen = []
    for at in (0.4, 0.5, 0.69, 0.71, 1.5, 2.0):
        clock.at(at, lambda now, _: seen.append(server.load(now)))
    clock.run_calls()
    assert [(load.running, load.generated_tokens) for load in seen] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 11),
        (0, 11),
    ]


def test_above_the_rate_limit_a_request_is_refused_until_there_is_room() -> None:
    clock, heard, server = bench(requests_per_minute=2)
    for number, at in enumerate((0.0, 0.0, 29.9, 30.0)):
        send(clock, server, number, at)
    clock.at(10.0, lambda now, _: seen.append(server.room_in_s(now)))
    seen: list[float] = []
    clock.run_calls()
    assert heard.refused == [(2, RATE_LIMITED)]
    assert sorted(heard.ends) == [0, 1, 3]
    assert seen == [20.0]


def test_tokens_count_with_the_answers_limit() -> None:
    clock, heard, server = bench(tokens_per_minute=600)
    for number, at in enumerate((0.0, 0.0, 1.0, 60.0)):
        send(clock, server, number, at, prompt=100, output=500)
    clock.run_calls()
    assert heard.refused == [(2, RATE_LIMITED)], "1200 taken: the account is even again after 60 s"
    assert sorted(heard.ends) == [0, 1, 3]


def test_above_the_limit_at_once_a_request_is_refused() -> None:
    clock, heard, server = bench(max_running_requests=1)
    send(clock, server, 0, at=0.0)
    send(clock, server, 1, at=1.0)
    send(clock, server, 2, at=1.6)
    seen: list[float] = []
    clock.at(1.0, lambda now, _: seen.append(server.room_in_s(now)))
    clock.run_calls()
    assert heard.refused == [(1, RATE_LIMITED)]
    assert sorted(heard.ends) == [0, 2]
    assert seen == [0.5], "the first ends at 1.5"


def test_a_cancelled_request_makes_no_more_of_itself() -> None:
    clock, heard, server = bench(max_running_requests=1)
    request = ServerRequest(0, [(0, 0, 5)], 5, 11, 11, 1, 0.0, ignore_eos=True)
    clock.at(0.0, lambda now, _: server.submit(request, now))
    clock.at(0.7, lambda now, _: server.cancel(request, now))
    send(clock, server, 1, at=0.8)
    clock.run_calls()
    assert sorted(heard.ends) == [1]
    assert server.load(10.0).generated_tokens == 3 + 11


def test_a_varying_delay_has_the_mean_and_spread_that_were_asked_for() -> None:
    clock, heard, server = bench(first_token_cv=0.4)
    for number in range(4000):
        send(clock, server, number, at=0.0)
    clock.run_calls()
    delays = np.array(list(heard.firsts.values()))
    assert delays.mean() == pytest.approx(0.5, rel=0.03)
    assert delays.std() / delays.mean() == pytest.approx(0.4, rel=0.1)


def test_token_by_token_is_the_same() -> None:
    ends = []
    for exact_steps in (False, True):
        clock, heard, server = bench(exact_steps=exact_steps, first_token_cv=0.3)
        for number in range(20):
            send(clock, server, number, at=0.1 * number, output=1 + number)
        clock.run_calls()
        ends.append((heard.firsts, heard.ends))
        values, counts = server.telemetry.steps.gaps()
        assert values.tolist() == [0.1]
        assert counts.tolist() == [sum(range(20))]
    assert ends[0] == ends[1]
