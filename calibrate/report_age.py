"""How old the load is that a server tells: how long a request has come, or has ended, before a report shows it."""

import asyncio
import random
from collections.abc import Callable

import numpy as np

from .client import SglangClient
from .plan import ReportPoint
from .samples import ReportSample
from .tasks import meanwhile

__all__ = ["report_samples"]

_READ_EVERY_S = 0.002


class _Reader:
    """Reads the report until it shows so many requests, or ``decoding`` has ended."""

    def __init__(self, client: SglangClient, decoding: "asyncio.Task[object]") -> None:
        self._client = client
        self._decoding = decoding
        self._clock = asyncio.get_running_loop().time
        self.round_trips_s: list[float] = []
        self.refreshes_s: list[float] = []

    async def shown_at(self, requests: int) -> float | None:
        """When it was, or None."""
        stamp = None
        while not self._decoding.done():
            began = self._clock()
            load = await self._client.load()
            ended = self._clock()
            self.round_trips_s.append(ended - began)
            now = float(load["timestamp"])
            if stamp is not None and now != stamp:
                self.refreshes_s.append(now - stamp)
            stamp = now
            if int(load["num_running_reqs"]) + int(load["num_waiting_reqs"]) == requests:
                return (began + ended) / 2
            await asyncio.sleep(_READ_EVERY_S)
        return None


async def report_samples(
    client: SglangClient, point: ReportPoint, prompt: Callable[[int], list[int]], rng: random.Random
) -> list[ReportSample]:
    """One sample of each request that comes and ends while another decodes; none where reports do not show it in its
    time. ``prompt``: a new one of so many tokens."""
    samples = []
    async with meanwhile(client.generate(prompt(point.work_tokens), point.steps)) as decoding:
        while sample := await _sample(client, _Reader(client, decoding), point, prompt, rng):
            samples.append(sample)
        await decoding
    return samples


async def _sample(
    client: SglangClient,
    reader: _Reader,
    point: ReportPoint,
    prompt: Callable[[int], list[int]],
    rng: random.Random,
) -> ReportSample | None:
    if await reader.shown_at(1) is None:
        return None
    # Random, as a report has just been written, and requests come at any moment between two.
    steps = rng.randint(*point.guest_steps)
    await asyncio.sleep(rng.uniform(0, steps * point.step_s))
    async with meanwhile(client.generate(prompt(point.work_tokens), steps)) as guest:
        seen_at = await reader.shown_at(2)
        answer = await guest
    gone_at = await reader.shown_at(1)
    if seen_at is None or gone_at is None:
        return None
    return ReportSample(
        round_trip_s=float(np.median(reader.round_trips_s)),
        refresh_s=float(np.mean(reader.refreshes_s)) if reader.refreshes_s else None,
        seen_after_s=seen_at - answer.sent_at,
        gone_after_s=gone_at - answer.token_at[-1],
        point=point.name,
    )
