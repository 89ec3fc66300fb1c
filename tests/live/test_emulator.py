"""The emulator speaks SGLang's protocol, at the pace of the model."""

import asyncio
import itertools
import json
from typing import Any

import aiohttp
import numpy as np
import pytest
from support.upstreams import MODEL, ask, emulated, generate_body, profile, until

from calibrate.client import SglangClient
from calibrate.server_facts import ServerFacts, read_facts
from live.clock import WallClock
from live.emulator.engine import Engine, Generation
from simcore.fleet import max_prompt_tokens


def events_of(text: str) -> list[dict[str, Any]]:
    """A stream's documents; its end mark must be there."""
    lines = [line[6:] for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_has_every_token_and_says_that_it_is_emulated() -> None:
    async def main() -> tuple[list[dict[str, Any]], str]:
        async with (
            emulated(incremental=False) as (url,),
            aiohttp.ClientSession() as session,
            session.post(f"{url}/generate", json=generate_body(5, rid="abc")) as response,
        ):
            return events_of(await response.text()), response.headers["Server"]

    events, server = asyncio.run(main())
    assert server == "simroute-emulator"
    assert all(event["meta_info"]["emulator"] == "simroute-emulator" for event in events)
    last = events[-1]
    assert last["meta_info"]["completion_tokens"] == len(last["output_ids"]) == 5
    assert last["meta_info"]["finish_reason"] == {"type": "length", "length": 5}
    assert last["meta_info"]["id"] == "abc"
    assert last["meta_info"]["e2e_latency"] > 0
    for before, after in itertools.pairwise(events):
        assert after["output_ids"][: len(before["output_ids"])] == before["output_ids"]
        assert after["text"].startswith(before["text"])


def test_incremental_streams_bring_each_token_once() -> None:
    async def main() -> str:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            return (await ask(session, url, 20))[1]

    events = events_of(asyncio.run(main()))
    assert sum(len(event["output_ids"]) for event in events) == 20


def test_a_whole_answer_equals_the_openai_ones_in_its_counts() -> None:
    async def main() -> list[dict[str, Any]]:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            answers = []
            for path, body in (
                ("/generate", {"input_ids": [1, 2, 3], "sampling_params": {"max_new_tokens": 4}}),
                ("/v1/completions", {"model": MODEL, "prompt": [4, 5, 6], "max_tokens": 4}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}),
            ):
                async with session.post(url + path, json=body) as response:
                    assert response.status == 200
                    answers.append(await response.json())
            return answers

    native, completion, chat = asyncio.run(main())
    assert native["meta_info"]["completion_tokens"] == 4
    assert completion["usage"]["prompt_tokens"] == 3
    assert completion["usage"]["completion_tokens"] == chat["usage"]["completion_tokens"] == 4
    assert len(chat["choices"][0]["message"]["content"]) == 16
    assert chat["system_fingerprint"] == "simroute-emulator"


def test_a_prompt_said_again_is_cached_and_flushing_forgets_it() -> None:
    async def main() -> list[int]:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            cached = []
            prompt = list(range(500))
            for _ in range(2):
                for ids in (prompt, prompt[:300] + [7777] * 100):
                    body = {"input_ids": ids, "sampling_params": {"max_new_tokens": 2}}
                    async with session.post(f"{url}/generate", json=body) as response:
                        cached.append((await response.json())["meta_info"]["cached_tokens"])
                async with session.post(f"{url}/flush_cache") as response:
                    assert response.status == 200
            return cached

    assert asyncio.run(main()) == [0, 300, 0, 300]


def test_an_answer_in_a_later_prompt_is_cached() -> None:
    async def main() -> int:
        async with emulated() as (url,), aiohttp.ClientSession() as session:
            body = {"input_ids": list(range(100)), "sampling_params": {"max_new_tokens": 50, "ignore_eos": True}}
            async with session.post(f"{url}/generate", json=body) as response:
                answer = (await response.json())["output_ids"]
            body["input_ids"] = [*range(100), *answer, 5, 6, 7]
            async with session.post(f"{url}/generate", json=body) as response:
                return int((await response.json())["meta_info"]["cached_tokens"])

    # The last token's KV was never computed.
    assert asyncio.run(main()) == 149


def test_abort_matches_the_beginning_of_the_rid_and_frees_the_place() -> None:
    async def main() -> tuple[list[str], int]:
        async with emulated(speed=1.0) as (url,), aiohttp.ClientSession() as session:
            asked = [asyncio.create_task(ask(session, url, 4000, rid=rid)) for rid in ("ab1", "ab2", "zz9")]
            await asyncio.sleep(0.3)
            async with session.post(f"{url}/abort_request", json={"rid": "ab"}) as response:
                assert response.status == 200
            gone = [text for _, text in await asyncio.gather(*asked[:2])]
            # They leave at the next step's boundary.
            running = 3
            while running > 1:
                async with session.get(f"{url}/v1/loads") as response:
                    running = (await response.json())["loads"][0]["num_running_reqs"]
            asked[2].cancel()
            return gone, running

    gone, running = asyncio.run(main())
    for text in gone:
        finish = events_of(text)[-1]["meta_info"]["finish_reason"]
        assert finish["type"] == "abort"
    assert running == 1


def test_a_full_queue_is_503_and_in_a_stream_an_abort() -> None:
    async def main() -> tuple[int, str]:
        small = profile(max_running_requests=1, max_queued_requests=1)
        async with emulated(profile=small, speed=1.0) as (url,), aiohttp.ClientSession() as session:
            asked = []
            for _ in range(2):
                asked.append(asyncio.create_task(ask(session, url, 400)))
                await asyncio.sleep(0.2)
            status, _ = await ask(session, url, 10, stream=False)
            _, text = await ask(session, url, 10)
            for task in asked:
                task.cancel()
            return status, text

    status, text = asyncio.run(main())
    assert status == 503
    assert events_of(text)[-1]["meta_info"]["finish_reason"]["status_code"] == 503


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("nonsense", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": ["a", "b"]}', "one prompt"),
        ('{"text": "a", "sampling_params": {"max_new_tokens": 0}}', "at least 1"),
        (json.dumps({"input_ids": [1] * 140_000}), "maximum allowed length"),
    ],
)
def test_mistakes_are_400_and_say_what_is_wrong(body: str, said: str) -> None:
    async def main() -> tuple[int, str]:
        async with (
            emulated() as (url,),
            aiohttp.ClientSession() as session,
            session.post(f"{url}/generate", data=body) as response,
        ):
            return response.status, (await response.json())["error"]["message"]

    status, message = asyncio.run(main())
    assert status == 400
    assert said in message


def test_the_cap_drains_and_then_rises_without_preempting() -> None:
    async def main() -> tuple[list[bool], int, int]:
        async with emulated(speed=5.0) as (url,), aiohttp.ClientSession() as session:

            async def running() -> int:
                async with session.get(f"{url}/v1/loads") as response:
                    return int((await response.json())["loads"][0]["num_running_reqs"])

            async def cap(limit: int) -> bool:
                body = {"server_args": {"pp_max_micro_batch_size": limit}}
                async with session.post(f"{url}/set_internal_state", json=body) as response:
                    return bool((await response.json())[0])

            asked = [asyncio.create_task(ask(session, url, 60 + 12 * index)) for index in range(40)]
            answers = [await cap(16), await cap(0)]
            await asyncio.sleep(0.1)
            answers.append(await cap(4))
            seen = []
            while not all(task.done() for task in asked):
                seen.append(await running())
                await asyncio.sleep(0.01)
                if len(seen) > 5 and 0 < seen[-1] <= 4 and seen[-1] == seen[-2]:
                    break
            low = seen[-1]
            answers.append(await cap(12))
            most = 0
            while not all(task.done() for task in asked):
                most = max(most, await running())
                await asyncio.sleep(0.01)
            texts = [text for _, text in await asyncio.gather(*asked)]
            assert all(events_of(text)[-1]["meta_info"]["num_retractions"] == 0 for text in texts)
            return answers, low, most

    answers, low, most = asyncio.run(main())
    assert answers == [True, False, True, True]
    assert low <= 4
    assert 4 < most <= 12


def test_a_key_is_asked_for_where_there_is_one() -> None:
    async def main() -> list[int]:
        async with emulated(api_key="secret") as (url,), aiohttp.ClientSession() as session:
            statuses = []
            for path, key in (("/server_info", ""), ("/server_info", "secret"), ("/ready", "")):
                async with session.get(url + path, headers={"Authorization": f"Bearer {key}"}) as response:
                    statuses.append(response.status)
            return statuses

    assert asyncio.run(main()) == [401, 200, 200]


def test_a_client_that_leaves_frees_its_place() -> None:
    async def main() -> None:
        async with emulated(speed=1.0) as (url,), aiohttp.ClientSession() as session:
            load: dict[str, int] = {}

            async def look() -> None:
                async with session.get(f"{url}/v1/loads") as response:
                    load.update((await response.json())["loads"][0])

            async with session.post(f"{url}/generate", json=generate_body(4000)) as response:
                await response.content.readline()
                await look()
                assert load["num_running_reqs"] == 1
            for _ in range(200):
                await look()
                if load["num_running_reqs"] == 0:
                    return
                await asyncio.sleep(0.02)
            raise AssertionError("the request runs on")

    asyncio.run(main())


def test_a_request_that_leaves_before_the_scheduler_saw_it_takes_no_place_with_it() -> None:
    async def main() -> tuple[int, int]:
        engine = Engine(WallClock(), profile(), "s0", np.random.SeedSequence(0))
        prompt = np.arange(100, dtype=np.uint32)
        answer = engine.draw_answer(5)
        generation = Generation("r", prompt, answer, 5, True, lambda _: None, lambda _: None)
        engine.submit(generation)
        engine.cancel(generation)
        await asyncio.sleep(0.05)
        load = engine.member.server.load(engine.catch_up())
        return load.running, load.queued

    assert asyncio.run(main()) == (0, 0)


def test_time_goes_by_as_fast_as_told() -> None:
    async def main(speed: float) -> float:
        async with emulated(speed=speed) as (url,), aiohttp.ClientSession() as session:
            _, text = await ask(session, url, 100)
            return float(events_of(text)[-1]["meta_info"]["e2e_latency"])

    # In the profile's seconds both take what the model says, 100 steps of some 7 ms; a slow machine can only add.
    assert asyncio.run(main(20.0)) > 0.6
    assert asyncio.run(main(1.0)) > 0.6


def test_the_last_token_takes_longer_where_the_profile_says_so() -> None:
    plain = profile()
    slow_to_end = plain.model_copy(update={"requests": plain.requests.model_copy(update={"last_token_s": 5.0})})

    async def main(tokens: int) -> float:
        async with emulated(profile=slow_to_end, speed=20.0) as (url,), aiohttp.ClientSession() as session:
            _, text = await ask(session, url, tokens)
            return float(events_of(text)[-1]["meta_info"]["e2e_latency"])

    assert asyncio.run(main(2)) > 5.0
    assert asyncio.run(main(1)) < 5.0


def test_a_calibration_reads_the_settings_that_are_emulated() -> None:
    emulated_one = profile(mixed_chunk=True, overlap=False, schedule_policy="lpm", max_queued_requests=7)

    async def main() -> ServerFacts:
        async with emulated(profile=emulated_one) as (url,), SglangClient(url, None) as client:
            return await read_facts(client)

    facts = asyncio.run(main())
    assert facts.settings == emulated_one.settings
    assert facts.context_length == emulated_one.context_length
    assert facts.max_prompt_tokens == max_prompt_tokens(emulated_one)
    assert facts.device == "simroute-emulator"


def test_until_gives_up() -> None:
    async def main() -> None:
        await until(lambda: False, within_s=0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
