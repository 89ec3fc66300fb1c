"""The measurements: what is sent for each point of the plan, and what the answers say of a step's time."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .client import Answer, SglangClient
from .errors import ForeignTrafficError, ServerMisbehavedError
from .neighbours import Neighbours
from .plan import DecodePoint, Point, PrefillPoint, ReportPoint, RidePoint
from .readings import (
    FEWEST_STEPS,
    Rider,
    full_batch_arrivals,
    ingress_spacing_s,
    last_token_s,
    mean_decode,
    mean_prefill,
    mean_step_s,
    prefill_sample,
    ride_sample,
    server_prefill_s,
    server_step_s,
)
from .report_age import report_samples
from .samples import DecodeSample, PrefillSample, RideSample, Sample
from .tasks import all_of, meanwhile

__all__ = ["Prober"]

_TOKEN_IDS = (10, 30_000)  # of nearly every vocabulary, without its special tokens
_WARM_UP_TOKENS = 8
_SETTLE_S = 0.02
_RIDERS = 8  # at most, for one sample
_RIDE_AFTER = 6  # tokens of each decoding request the first prompt is sent
_RIDE_BEFORE_END = 4  # tokens of any of them the last is sent at the latest
_PREFILL_SHOTS = 5  # at most, for one sample
_PREFILL_SHOTS_S = 0.5
_DECODE_RUNS = 6  # at most, for one sample
_DECODE_STEPS = 186  # that are enough for one, also where they take less than
_DECODE_RUNS_S = 1.5


class Prober:
    """Takes the samples of one point at a time. ``allow_busy``: other requests on the server are tolerated."""

    def __init__(
        self,
        client: SglangClient,
        rng: random.Random,
        *,
        radix_cache: bool,
        neighbours: Neighbours,
        allow_busy: bool = False,
    ) -> None:
        self._client = client
        self._rng = rng
        self._radix_cache = radix_cache
        self._neighbours = neighbours
        self._allow_busy = allow_busy

    async def take(self, point: Point) -> list[Sample]:
        """Measure ``point`` once. Raises UserError where the server fails or is not ours alone."""
        await self._neighbours.calm()
        self._neighbours.start()
        match point:
            case PrefillPoint():
                return [await self._prefill(point)]
            case DecodePoint():
                return [await self._decode(point)]
            case RidePoint():
                return [await self._ride(point)]
            case ReportPoint():
                return list(await report_samples(self._client, point, self._prompt, self._rng))

    async def warm_up(self) -> float:
        """First requests are slow: allocators and caches. The last tell about how long a decode step of a small batch
        takes, in seconds."""
        for tokens in (256, 16):
            answers = await self._together([tokens] * 2, _WARM_UP_TOKENS)
        return (answers[0].token_at[-1] - answers[0].sent_at) / _WARM_UP_TOKENS

    async def idle_load(self) -> dict[str, Any]:
        """The load report of the server without our requests. Raises ForeignTrafficError if others' are there."""
        for attempt in range(25):
            load = await self._client.load()
            running, waiting = int(load["num_running_reqs"]), int(load["num_waiting_reqs"])
            if self._allow_busy or running + waiting == 0:
                return load
            # Ours of a moment ago may not have left the report yet.
            await asyncio.sleep(_SETTLE_S * (1 + attempt / 2))
        raise ForeignTrafficError(
            f"{self._client.url}: {running} requests run and {waiting} wait that are not ours, so step times would be "
            "wrong; take the traffic off, or use --allow-busy to measure all the same"
        )

    def _prompt(self, tokens: int) -> list[int]:
        """Fresh random tokens: nothing of it is in any cache."""
        return [self._rng.randrange(*_TOKEN_IDS) for _ in range(tokens)]

    async def _empty_cache(self) -> None:
        # A server with others' requests refuses: say that they are the reason.
        await self.idle_load()
        if self._radix_cache and not self._allow_busy:
            await self._client.flush_cache()

    async def _prefill(self, point: PrefillPoint) -> PrefillSample:
        """The mean of a few: one step is short, and what else the machine does hits it whole or not at all."""
        prefix = self._prompt(point.cached_tokens)
        if prefix:
            await self._empty_cache()
            await self._client.generate([*prefix, *self._prompt(1)], 1)
        shots: list[PrefillSample] = []
        while len(shots) < _PREFILL_SHOTS and sum(shot.ttft_s for shot in shots) < _PREFILL_SHOTS_S:
            shots.append(await self._shot(point, prefix))
        return mean_prefill(shots, self._neighbours.meanwhile())

    async def _shot(self, point: PrefillPoint, prefix: list[int]) -> PrefillSample:
        new_tokens = self._rng.randint(point.fewest_tokens, point.new_tokens)
        await asyncio.sleep(_SETTLE_S)
        before = await self.idle_load()
        answer = await self._client.generate([*prefix, *self._prompt(new_tokens)], 1)
        await asyncio.sleep(_SETTLE_S)
        after = await self.idle_load()
        cached = int(answer.meta.get("cached_tokens", 0))
        if abs(cached - point.cached_tokens) > max(32, point.cached_tokens // 10):
            raise ServerMisbehavedError(
                f"{self._client.url}: a prompt with {point.cached_tokens} cached tokens had {cached}: something else "
                "uses the prefix cache, or prompts repeat"
            )
        busy_s = server_prefill_s(before, after, new_tokens)
        return prefill_sample(point, new_tokens + point.cached_tokens - cached, answer, cached, busy_s)

    async def _decode(self, point: DecodePoint) -> DecodeSample:
        """The mean of a few where it is short, as with prefills. A run is lost whose requests were not together."""
        runs: list[DecodeSample] = []
        for _ in range(_DECODE_RUNS):
            run = await self._decode_run(point)
            runs += [run] if run else []
            steps = sum(run.steps for run in runs)
            if steps >= _DECODE_STEPS or sum(run.steps * run.step_s for run in runs) >= _DECODE_RUNS_S:
                break
        if not runs:
            raise ServerMisbehavedError(
                f"{self._client.url}: {point.batch} requests of {point.prompt_tokens} tokens did not run together for "
                f"{FEWEST_STEPS} steps, though its limits allow it"
            )
        return mean_decode(runs, self._neighbours.meanwhile())

    async def _decode_run(self, point: DecodePoint) -> DecodeSample | None:
        await self._empty_cache()
        before = await self.idle_load()
        prompts = point.prompts()
        answers = await self._together(prompts, point.steps)
        await asyncio.sleep(_SETTLE_S)
        after = await self.idle_load()
        gaps = np.diff(full_batch_arrivals(answers))
        if len(gaps) < FEWEST_STEPS:
            return None
        client_s = mean_step_s(gaps)
        # What was seen of stalls is taken off the server's mean too: both clocks count the same steps.
        without_stalls = client_s / float(gaps.mean())
        server_s = server_step_s(before, after, point.batch)
        return DecodeSample(
            batch=point.batch,
            context_tokens=float(np.mean(prompts)) + point.steps / 2 + 1,
            steps=len(gaps),
            step_s=client_s if server_s is None else without_stalls * server_s,
            client_step_s=client_s,
            others_cores=0.0,
            point=point.name,
            ingress_spacing_s=ingress_spacing_s(answers),
            last_token_s=last_token_s(gaps) if point.batch == 1 else None,
        )

    async def _together(
        self, prompts: Sequence[int], steps: int, on_tokens: Callable[[int], None] | None = None
    ) -> list[Answer]:
        fresh = [self._prompt(tokens) for tokens in prompts]
        return await all_of(self._client.generate(prompt, steps, on_tokens) for prompt in fresh)

    async def _ride(self, point: RidePoint) -> RideSample:
        await self._empty_cache()
        await self.idle_load()
        answers, riders = await self._with_riders(point)
        sample = ride_sample(point, answers, riders, self._neighbours.meanwhile())
        if sample is None:
            raise ServerMisbehavedError(
                f"{self._client.url}: no prompt came while {point.batch} requests decoded, one was always under way, "
                "or tokens came two at a time"
            )
        return sample

    async def _with_riders(self, point: RidePoint) -> tuple[list[Answer], list[Rider]]:
        """The answers of requests that decode together, and of the prompts that came meanwhile, one after another."""
        begun = asyncio.Event()
        waited_for, most_tokens = point.batch, 0

        def heard(tokens: int) -> None:
            nonlocal waited_for, most_tokens
            most_tokens = max(most_tokens, tokens)
            waited_for -= tokens == _RIDE_AFTER
            if waited_for == 0:
                begun.set()

        together = self._together([point.prompt_tokens] * point.batch, point.steps, heard)
        riders: list[Rider] = []
        async with meanwhile(together) as decoding, meanwhile(begun.wait()) as waiting:
            await asyncio.wait([decoding, waiting], return_when="FIRST_COMPLETED")
            while not riders or (len(riders) < _RIDERS and most_tokens < point.steps - _RIDE_BEFORE_END):
                prompt = self._prompt(self._rng.randint(point.fewest_tokens, point.new_tokens))
                answer = await self._client.generate(prompt, 1)
                riders.append(Rider(len(prompt), answer))
                # Random, so that prompts come at any moment of a step, as they do in use.
                await asyncio.sleep(self._rng.uniform(1, 2) * answer.ttft_s)
            return await decoding, riders
