"""Clients that are not ours, in front of the router service: the ``openai`` library and ``curl``."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest
from support.upstreams import MODEL, emulated, served

from live.service.app import Service

TOKENS = 50
CHAT = [{"role": "user", "content": "Say something."}]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_CLIENT", "the-clients-key")


@asynccontextmanager
async def router(speed: float = 10.0) -> AsyncIterator[tuple[str, Service]]:
    """A service before two emulators."""
    async with (
        asyncio.timeout(40),
        emulated(2, speed=speed) as urls,
        served(urls, api_key_env="TEST_CLIENT") as (url, service),
    ):
        yield url, service


@asynccontextmanager
async def client(key: str = "the-clients-key") -> AsyncIterator[openai.AsyncOpenAI]:
    """The library as it comes, but for retries, which would hide errors, and proxies of the machine."""
    async with (
        router() as (url, _),
        openai.DefaultAsyncHttpxClient(trust_env=False) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http) as asking,
    ):
        yield asking


def test_openai_streams_a_chat() -> None:
    async def main() -> None:
        async with client() as asking:
            stream = await asking.chat.completions.create(
                model=MODEL, messages=CHAT, max_tokens=TOKENS, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        *pieces, last = chunks
        assert len(pieces) > 1
        assert [chunk.choices[0].finish_reason for chunk in pieces] == [None] * (len(pieces) - 1) + ["length"]
        assert pieces[0].choices[0].delta.role == "assistant"
        assert all(chunk.choices[0].delta.content for chunk in pieces)
        assert last.usage is not None
        assert last.usage.completion_tokens == TOKENS

    asyncio.run(main())


def test_openai_streams_a_completion_that_equals_the_whole_one_in_form() -> None:
    async def main() -> None:
        async with client() as asking:
            ask = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": TOKENS}
            stream = await asking.completions.create(**ask, stream=True)
            pieces = [chunk.choices[0] async for chunk in stream]
            whole = await asking.completions.create(**ask)
        assert len(pieces) > 1
        assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
        assert all(piece.text for piece in pieces)
        assert whole.choices[0].finish_reason == "length"
        assert whole.usage is not None
        assert whole.usage.completion_tokens == TOKENS

    asyncio.run(main())


def test_openai_lists_the_models() -> None:
    async def main() -> None:
        async with client() as asking:
            assert [model.id async for model in asking.models.list()] == [MODEL]

    asyncio.run(main())


def test_openai_reads_our_errors_as_its_own() -> None:
    async def main() -> None:
        async with client("another-key") as asking:
            with pytest.raises(openai.AuthenticationError) as no_key:
                await asking.chat.completions.create(model=MODEL, messages=CHAT)
            with pytest.raises(openai.AuthenticationError):
                [model async for model in asking.models.list()]
        assert no_key.value.body == {"message": "the key is missing or wrong", "type": "unauthorized", "code": 401}
        async with client() as asking:
            with pytest.raises(openai.NotFoundError) as no_model:
                await asking.completions.create(model="nobody", prompt="a")
        assert no_model.value.type == "no_model"
        assert MODEL in no_model.value.message

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_prints_each_event_as_it_comes() -> None:
    async def main() -> None:
        async with router(speed=1.0) as (url, service):
            body = json.dumps({"text": "hello", "sampling_params": {"max_new_tokens": 100}, "stream": True})
            words = ["-N", "-s", "--noproxy", "*", "-H", "Authorization: Bearer the-clients-key", "-d", body]
            process = await asyncio.create_subprocess_exec(
                "curl", *words, f"{url}/generate", stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            first = await process.stdout.readline()
            # Printed while the server still answers.
            assert service.fleet.driver.requests == 1
            assert json.loads(first.removeprefix(b"data: "))["meta_info"]["completion_tokens"] < 50
            *_, last, done, after = (await process.stdout.read()).split(b"\n\n")
            assert await process.wait() == 0
        assert (done, after) == (b"data: [DONE]", b"")
        assert json.loads(last.removeprefix(b"data: "))["meta_info"]["completion_tokens"] == 100

    asyncio.run(main())
