"""What a visit makes of the times at which tokens came, on a server whose times are planned."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, cycle
from typing import Any

import pytest

from calibrate.client import Answer, SglangClient
from calibrate.errors import ServerMisbehavedError
from calibrate.neighbours import Neighbours
from calibrate.plan import DECODE_TOKENS, RIDE_TOKENS, DecodePoint, Point, PrefillPoint, ReportPoint, RidePoint
from calibrate.probes import Prober
from calibrate.samples import DecodeSample, PrefillSample, RideSample, Sample

STEP_S, SLOW_S, STALL_S, PREFILL_S = 0.01, 0.02, 0.2, 0.05
STEPS = DECODE_TOKENS - 1
ONE, TWO = DecodePoint(1, 64, longest_prompt=4000), DecodePoint(2, 64, longest_prompt=4000)


class PlannedServer(SglangClient):
    """Answers of several tokens have ``gaps_s`` between them, and those of a single token come at ``single_at``, the
    next one each time, and took ``single_s``; None: sent at 0."""

    def __init__(self, gaps_s: Sequence[float], *single_at: float, single_s: float | None = None) -> None:
        super().__init__("http://elsewhere:1")
        self._gaps_s = gaps_s
        self._single_at = cycle(single_at)
        self._single_s = single_s
        self.passed_on_at: Iterator[float] | None = None
        """When requests are passed on to the scheduler, by the server's clock; None: it does not tell."""
        self.prompts: list[int] = []
        """Tokens of those that were answered with one token."""
        self.decoded: list[int] = []
        """Tokens of the others' prompts."""

    async def load(self) -> dict[str, Any]:
        return {"num_running_reqs": 0, "num_waiting_reqs": 0}

    async def flush_cache(self) -> None:
        pass

    async def generate(
        self, input_ids: Sequence[int], max_new_tokens: int, on_tokens: Callable[[int], None] | None = None
    ) -> Answer:
        if max_new_tokens == 1:
            self.prompts.append(len(input_ids))
            at = next(self._single_at)
            return Answer(0.0 if self._single_s is None else at - self._single_s, 0.0, 0.0, (at,), (1,), {})
        self.decoded.append(len(input_ids))
        meta = {} if self.passed_on_at is None else {"api_server_dispatch_finish_ts": next(self.passed_on_at)}
        for tokens in range(1, max_new_tokens + 1):
            if on_tokens is not None:
                on_tokens(tokens)
                await asyncio.sleep(0)
        token_at = tuple(accumulate(self._gaps_s, initial=1.0))
        return Answer(0.0, 0.0, 0.0, token_at, tuple(range(1, len(token_at) + 1)), meta)


def visit(server: PlannedServer, point: Point) -> Sample:
    with Neighbours(server.url) as neighbours:
        prober = Prober(server, random.Random(0), radix_cache=True, neighbours=neighbours)
        return asyncio.run(prober.take(point))[0]


def test_warming_up_tells_about_how_long_a_step_takes() -> None:
    server = PlannedServer([STEP_S] * 7)
    with Neighbours(server.url) as neighbours:
        prober = Prober(server, random.Random(0), radix_cache=True, neighbours=neighbours)
        # The first token of a planned answer comes after a second.
        assert asyncio.run(prober.warm_up()) == pytest.approx((1.0 + 7 * STEP_S) / 8)


def test_a_decode_step_is_the_mean_of_fast_and_slow_ones() -> None:
    sample = visit(PlannedServer([STEP_S] * (STEPS - 8) + [SLOW_S] * 8), TWO)
    assert isinstance(sample, DecodeSample)
    assert sample.step_s == pytest.approx((STEP_S * (STEPS - 8) + SLOW_S * 8) / STEPS)


def test_how_far_apart_requests_reach_the_scheduler_that_are_sent_at_once() -> None:
    server = PlannedServer([STEP_S] * STEPS)
    batch = replace(TWO, batch=4)
    assert visit(server, batch).ingress_spacing_s is None

    # Told in any order, and held up once.
    server.passed_on_at = cycle([100.0, 100.004, 100.002, 100.012])
    assert visit(server, batch).ingress_spacing_s == pytest.approx(0.002)
    assert visit(server, ONE).ingress_spacing_s is None


def test_by_how_much_a_request_s_first_and_last_step_take_longer_than_others() -> None:
    server = PlannedServer([STEP_S + 0.002, *[STEP_S] * (STEPS - 2), STEP_S + 0.005])
    assert visit(server, ONE).last_token_s == pytest.approx(0.007)
    # Requests that begin and end together each add to the others' steps.
    assert visit(server, TWO).last_token_s is None
    for stalled in ([STALL_S, *[STEP_S] * (STEPS - 1)], [*[STEP_S] * (STEPS - 1), STALL_S]):
        assert visit(PlannedServer(stalled), ONE).last_token_s is None
    between = [STEP_S + 0.002, STALL_S, *[STEP_S] * (STEPS - 2)]
    assert visit(PlannedServer(between), ONE).last_token_s == pytest.approx(0.002)


def test_a_stall_is_no_step() -> None:
    sample = visit(PlannedServer([STEP_S] * (STEPS - 1) + [STALL_S]), TWO)
    assert isinstance(sample, DecodeSample)
    assert sample.step_s == pytest.approx(STEP_S)


@pytest.mark.parametrize(("step_s", "runs"), [(0.002, 6), (0.01, 5), (0.02, 3), (0.04, 2), (0.05, 1)])
def test_a_short_decode_point_is_the_mean_of_a_few_runs(step_s: float, runs: int) -> None:
    class Slower(PlannedServer):
        """Each answer's steps take a hundredth longer than the last one's."""

        async def generate(self, *args: Any) -> Answer:
            self._gaps_s = [1.01 * gap_s for gap_s in self._gaps_s]
            return await super().generate(*args)

    sample = visit(Slower([step_s] * STEPS), ONE)
    assert isinstance(sample, DecodeSample)
    assert sample.steps == runs * STEPS
    assert sample.step_s == pytest.approx(step_s * sum(1.01 ** (run + 1) for run in range(runs)) / runs)


def test_two_runs_of_long_answers_are_enough() -> None:
    sample = visit(PlannedServer([0.002] * 128), DecodePoint(1, 64, longest_prompt=4000, steps=129))
    assert isinstance(sample, DecodeSample)
    assert sample.steps == 2 * 128


class TwoAtATime(PlannedServer):
    """Every third token of its answers comes with the next one."""

    async def generate(self, *args: Any) -> Answer:
        answer = await super().generate(*args)
        parts = [part for part in range(len(answer.tokens)) if part % 3 != 1]
        return replace(
            answer,
            token_at=tuple(answer.token_at[part] for part in parts),
            tokens=tuple(answer.tokens[part] for part in parts),
        )


def test_tokens_that_come_two_at_a_time_took_a_step_each() -> None:
    sample = visit(TwoAtATime([STEP_S] * STEPS), ONE)
    assert isinstance(sample, DecodeSample)
    assert (sample.steps, sample.step_s) == (5 * STEPS, pytest.approx(STEP_S))


def test_a_ride_whose_steps_cannot_be_told_apart_is_refused() -> None:
    rider_at = 1.0 + 16 * STEP_S
    point = RidePoint(2, 64, 32, 32)
    visit(PlannedServer([STEP_S] * (RIDE_TOKENS - 1), rider_at, single_s=0.0), point)
    with pytest.raises(ServerMisbehavedError, match="tokens came two at a time"):
        visit(TwoAtATime([STEP_S] * (RIDE_TOKENS - 1), rider_at, single_s=0.0), point)


def test_requests_that_did_not_run_together_are_refused() -> None:
    class OneAfterTheOther(PlannedServer):
        async def generate(self, *args: Any) -> Answer:
            answer = await super().generate(*args)
            self._began_s = getattr(self, "_began_s", 0.0) + 1.0
            return replace(answer, token_at=tuple(at + self._began_s for at in answer.token_at))

    with pytest.raises(ServerMisbehavedError, match="2 requests of 64 tokens did not run together for 16 steps"):
        visit(OneAfterTheOther([STEP_S] * STEPS), TWO)


def test_decode_prompts_are_unequal_and_their_mean_is_the_context() -> None:
    point = DecodePoint(4, 200, longest_prompt=300)
    server = PlannedServer([STEP_S] * STEPS)
    sample = visit(server, point)
    assert isinstance(sample, DecodeSample)
    assert server.decoded[:4] == point.prompts()
    assert sample.context_tokens == pytest.approx(sum(point.prompts()) / 4 + DECODE_TOKENS / 2 + 1)


def test_a_rides_extra_time_is_against_the_mean_of_the_other_steps() -> None:
    # Every other step is slow, and so is the one that holds the prefill; the prompt arrives in the step before it.
    gaps_s = [STEP_S, SLOW_S] * (RIDE_TOKENS // 2)
    gaps_s[15] += PREFILL_S
    rider_at = 1.0 + sum(gaps_s[:16]) - SLOW_S / 2
    sample = visit(PlannedServer(gaps_s, rider_at, single_s=PREFILL_S + STEP_S), RidePoint(2, 64, 32, 32))
    assert isinstance(sample, RideSample)
    assert sample.decode_step_s == pytest.approx((STEP_S + SLOW_S) / 2)
    assert sample.extra_s == pytest.approx(PREFILL_S)


def test_a_prefill_point_is_measured_with_prompts_of_several_lengths() -> None:
    server = PlannedServer([], 0.03)
    sample = visit(server, PrefillPoint(800, 0, fewest_tokens=700))
    assert isinstance(sample, PrefillSample)
    assert sample.new_tokens == round(sum(server.prompts) / 5)
    assert all(700 <= tokens <= 800 for tokens in server.prompts)
    assert len(server.prompts) == 5
    assert len(set(server.prompts)) > 1


def test_a_prefill_is_the_mean_of_fast_and_slow_shots_without_stalls() -> None:
    sample = visit(PlannedServer([], 0.01, 0.02, 0.03, 0.01, 0.03), PrefillPoint(64, 0, fewest_tokens=64))
    assert isinstance(sample, PrefillSample)
    assert sample.step_s == sample.ttft_s == pytest.approx(0.02)
    stalled = visit(PlannedServer([], 0.01, 0.01, 0.07, 0.02, 0.02), PrefillPoint(64, 0, fewest_tokens=64))
    assert isinstance(stalled, PrefillSample)
    assert stalled.step_s == stalled.ttft_s == pytest.approx(0.015)


def test_a_ride_is_of_eight_prompts_of_several_lengths() -> None:
    gaps_s = [STEP_S] * STEPS
    server = PlannedServer(gaps_s, 1.0 + sum(gaps_s[:16]), single_s=0.0)
    sample = visit(server, RidePoint(2, 64, 800, fewest_tokens=700))
    assert isinstance(sample, RideSample)
    assert len(server.prompts) == 8
    assert len(set(server.prompts)) > 1
    assert sample.new_tokens == round(sum(server.prompts) / 8)
    assert all(700 <= tokens <= 800 for tokens in server.prompts)


def test_a_ride_without_a_prompt_in_time_is_refused() -> None:
    gaps_s = [STEP_S] * STEPS
    with pytest.raises(ServerMisbehavedError, match="no prompt came while 2 requests decoded"):
        visit(PlannedServer(gaps_s, 2.0 + sum(gaps_s), single_s=STEP_S), RidePoint(2, 64, 32, 32))


class EndlessServer(PlannedServer):
    """Answers of several tokens never come."""

    def __init__(self) -> None:
        super().__init__([])
        self.begun = self.ended = 0

    async def load(self) -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return {"num_running_reqs": 0, "num_waiting_reqs": 0, "timestamp": 1.0}

    async def generate(
        self, input_ids: Sequence[int], max_new_tokens: int, on_tokens: Callable[[int], None] | None = None
    ) -> Answer:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
        raise AssertionError("an event that nobody sets was set")


@pytest.mark.parametrize("point", [ReportPoint(0.001), RidePoint(2, 64, 32, 32)], ids=["load report", "ride"])
def test_a_visit_that_is_out_of_time_leaves_no_request(point: Point) -> None:
    server = EndlessServer()

    async def out_of_time() -> tuple[int, int]:
        with Neighbours(server.url) as neighbours:
            prober = Prober(server, random.Random(0), radix_cache=True, neighbours=neighbours)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await prober.take(point)
        return server.begun, server.ended

    begun, ended = asyncio.run(out_of_time())
    assert begun == ended > 0
