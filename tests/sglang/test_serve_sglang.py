"""``simroute serve`` in front of a real SGLang 0.5.23 on a CPU; run by ``make test-sglang``."""

import asyncio
import itertools
import os

import aiohttp
import pytest
from support.upstreams import ask, served
from test_calibrate_sglang import launched

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.skipif("SIMROUTE_SGLANG" not in os.environ, reason="needs an SGLang environment (make test-sglang)"),
]
ADMIN = {"Authorization": "Bearer admin-key"}


def test_a_cap_of_16_then_4_then_12_drains_and_rises_and_preempts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ADMIN", "admin-key")

    async def scene() -> None:
        async with (
            launched("--incremental-streaming-output") as server,
            served([server], admin_key_env="TEST_ADMIN") as (url, service),
            aiohttp.ClientSession() as session,
        ):

            async def cap(limit: int) -> None:
                body = {"max_running_requests": limit}
                async with session.patch(f"{url}/admin/servers/s0", json=body, headers=ADMIN) as response:
                    assert (await response.json())["pushed"] is True

            async def running() -> int:
                async with session.get(f"{server}/v1/loads") as response:
                    return int((await response.json())["loads"][0]["num_running_reqs"])

            await cap(16)
            asked = [asyncio.create_task(ask(session, url, 40 + 5 * number)) for number in range(32)]
            while await running() < 16:
                await asyncio.sleep(0.05)
            await cap(4)
            falling = [await running()]
            while falling[-1] > 4:
                await asyncio.sleep(0.05)
                falling.append(await running())
            assert all(after <= before for before, after in itertools.pairwise(falling))
            await cap(12)
            most = 0
            while not all(task.done() for task in asked):
                most = max(most, await running())
                await asyncio.sleep(0.05)
            assert 4 < most <= 12
            answers = [task.result() for task in asked]
            assert all(status == 200 and text.endswith("[DONE]\n\n") for status, text in answers)
            # Nobody's KV was taken back.
            assert all('"num_retractions":0' in text.replace(" ", "") for _, text in answers)
            assert service.metrics.outcomes == {"finished": 32}

    asyncio.run(asyncio.wait_for(scene(), 300))
