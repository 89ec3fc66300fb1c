"""The age of load reports, of a server that writes one now and then."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from support.fast_forward import run_fast_forward

from calibrate.client import Answer, SglangClient
from calibrate.plan import ReportPoint
from calibrate.report_age import report_samples
from calibrate.samples import ReportSample

STEP_S = 0.01
READ_S = 0.004
"""What a reading takes, and the pause after it, rounded up."""


class WritingServer(SglangClient):
    """Writes down each ``every_s`` how many requests it has; 0: whenever it is asked."""

    def __init__(self, every_s: float) -> None:
        super().__init__("http://elsewhere:1")
        self._every_s = every_s
        self._changes: list[tuple[float, int]] = []
        self.asked_for: list[int] = []

    async def load(self) -> dict[str, Any]:
        await asyncio.sleep(READ_S / 4)
        now = self._now()
        written_at = now // self._every_s * self._every_s if self._every_s else now
        requests = sum(change for at, change in self._changes if at <= written_at)
        return {"num_running_reqs": min(requests, 1), "num_waiting_reqs": max(requests - 1, 0), "timestamp": written_at}

    async def generate(
        self, input_ids: Sequence[int], max_new_tokens: int, on_tokens: Callable[[int], None] | None = None
    ) -> Answer:
        self.asked_for.append(max_new_tokens)
        sent_at = self._now()
        self._changes.append((sent_at, 1))
        await asyncio.sleep(max_new_tokens * STEP_S)
        self._changes.append((self._now(), -1))
        return Answer(sent_at, 0.0, 0.0, (self._now(),), (max_new_tokens,), {})

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def samples_of(server: WritingServer, visits: int = 1) -> list[ReportSample]:
    async def visit() -> list[ReportSample]:
        rng = random.Random(0)
        await asyncio.sleep(STEP_S)  # What is sent at 0 would be in the report of 0.
        return [
            sample
            for _ in range(visits)
            for sample in await report_samples(server, ReportPoint(STEP_S), lambda tokens: [1] * tokens, rng)
        ]

    return run_fast_forward(visit())


def test_requests_come_and_end_at_any_moment_between_two_reports() -> None:
    """Then reports are half of the time between two of them old, on average."""
    every_s = 10 * STEP_S
    samples = samples_of(WritingServer(every_s), visits=60)
    assert len(samples) > 100
    for found in ([one.seen_after_s for one in samples], [one.gone_after_s for one in samples]):
        assert 0 <= min(found) < 0.1 * every_s
        assert 0.9 * every_s < max(found) <= every_s + READ_S
        assert sum(found) / len(found) == pytest.approx(every_s / 2, rel=0.15)
    for one in samples:
        assert one.round_trip_s == pytest.approx(READ_S / 4)
        assert one.refresh_s == pytest.approx(every_s)


def test_a_report_of_the_moment_has_no_age() -> None:
    for one in samples_of(WritingServer(0.0)):
        assert 0 <= one.seen_after_s <= READ_S
        assert 0 <= one.gone_after_s <= READ_S


def test_a_server_that_never_tells_of_them_in_their_time_has_no_samples() -> None:
    point = ReportPoint(STEP_S)
    server = WritingServer(10 * point.steps * STEP_S)
    assert samples_of(server) == []
    assert server.asked_for == [point.steps]
