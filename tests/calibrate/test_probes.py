"""What a visit makes of the times at which tokens came, on a server whose times are planned."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, cycle
from typing import Any

import pytest

from calibrate.client import Answer, SglangClient
from calibrate.errors import ServerMisbehavedError
from calibrate.neighbours import Neighbours
from calibrate.plan import DECODE_TOKENS, RIDE_TOKENS, DecodePoint, Point, PrefillPoint, RidePoint
from calibrate.probes import Prober
from calibrate.samples import DecodeSample, PrefillSample, RideSample, Sample

STEP_S, SLOW_S, STALL_S, PREFILL_S = 0.01, 0.02, 0.2, 0.05
STEPS = DECODE_TOKENS - 1


class PlannedServer(SglangClient):
    """Answers of several tokens have ``gaps_s`` between them, and those of a single token come at ``single_at``, the
    next one each time, and took ``single_s``; None: sent at 0."""

    def __init__(self, gaps_s: Sequence[float], *single_at: float, single_s: float | None = None) -> None:
        super().__init__("http://elsewhere:1")
        self._gaps_s = gaps_s
        self._single_at = cycle(single_at)
        self._single_s = single_s
        self.prompts: list[int] = []
        """Tokens of those that were answered with one token."""

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
        for tokens in range(1, max_new_tokens + 1):
            if on_tokens is not None:
                on_tokens(tokens)
                await asyncio.sleep(0)
        token_at = tuple(accumulate(self._gaps_s, initial=1.0))
        return Answer(0.0, 0.0, 0.0, token_at, tuple(range(1, max_new_tokens + 1)), {})


def visit(server: PlannedServer, point: Point) -> Sample:
    with Neighbours(server.url) as neighbours:
        prober = Prober(server, random.Random(0), radix_cache=True, neighbours=neighbours)
        return asyncio.run(prober.take(point))[0]


def test_a_decode_step_is_the_mean_of_fast_and_slow_ones() -> None:
    sample = visit(PlannedServer([STEP_S] * (STEPS - 8) + [SLOW_S] * 8), DecodePoint(2, 64))
    assert isinstance(sample, DecodeSample)
    assert sample.step_s == pytest.approx((STEP_S * (STEPS - 8) + SLOW_S * 8) / STEPS)


def test_a_stall_is_no_step() -> None:
    sample = visit(PlannedServer([STEP_S] * (STEPS - 1) + [STALL_S]), DecodePoint(2, 64))
    assert isinstance(sample, DecodeSample)
    assert sample.step_s == pytest.approx(STEP_S)


@pytest.mark.parametrize(("step_s", "runs"), [(0.002, 6), (0.01, 5), (0.02, 3), (0.04, 2), (0.05, 1)])
def test_a_short_decode_point_is_the_mean_of_a_few_runs(step_s: float, runs: int) -> None:
    class Slower(PlannedServer):
        """Each answer's steps take a hundredth longer than the last one's."""

        async def generate(self, *args: Any) -> Answer:
            self._gaps_s = [1.01 * gap_s for gap_s in self._gaps_s]
            return await super().generate(*args)

    sample = visit(Slower([step_s] * STEPS), DecodePoint(1, 64))
    assert isinstance(sample, DecodeSample)
    assert sample.steps == runs * STEPS
    assert sample.step_s == pytest.approx(step_s * sum(1.01 ** (run + 1) for run in range(runs)) / runs)


class TwoAtATime(PlannedServer):
    """Its first ``lost`` answers have a part that holds two tokens."""

    def __init__(self, lost: int) -> None:
        super().__init__([STEP_S] * STEPS)
        self._lost = lost

    async def generate(self, *args: Any) -> Answer:
        answer, self._lost = await super().generate(*args), self._lost - 1
        return replace(answer, tokens=(*answer.tokens[:-1], answer.tokens[-1] + 1)) if self._lost >= 0 else answer


def test_a_run_whose_tokens_came_two_at_a_time_is_lost_and_not_the_visit() -> None:
    sample = visit(TwoAtATime(1), DecodePoint(1, 64))
    assert isinstance(sample, DecodeSample)
    assert (sample.steps, sample.step_s) == (5 * STEPS, pytest.approx(STEP_S))
    with pytest.raises(ServerMisbehavedError, match="1 requests of 64 tokens did not run together for 16 steps"):
        visit(TwoAtATime(6), DecodePoint(1, 64))


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
