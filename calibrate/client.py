"""A client of one SGLang server: the endpoints that a calibration needs, with one clear error for each way to fail."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import aiohttp

from .errors import NotSglangError, RefusedError, ServerGoneError, ServerMisbehavedError

__all__ = ["Answer", "SglangClient"]

_CONTROL_TIMEOUT_S = 30.0
_KEEP_ALIVE_S = 2.5
"""Of an idle connection: servers close it after 5 s, and a request that is sent at that moment would be lost."""
_FLUSH_WITHIN_S = 2
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer: when each part came (the event loop's seconds), tokens up to then, the last meta_info.

    ``sent_wall`` and ``first_wall`` are ``time.time``, to be held against the server's own timestamps.
    """

    sent_at: float
    sent_wall: float
    first_wall: float
    token_at: tuple[float, ...]
    tokens: tuple[int, ...]
    meta: dict[str, Any]

    @property
    def ttft_s(self) -> float:
        return self.token_at[0] - self.sent_at


class SglangClient:
    """For ``async with SglangClient(url, key) as client``. Every method raises UserError when the server fails."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._prefix = uuid4().hex
        self._sent = 0
        self._unfinished: set[str] = set()

    async def __aenter__(self) -> Self:
        # No limit on connections: a batch of any size has to be in flight at once.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(
            headers=self._headers, connector=connector, timeout=timeout, read_bufsize=2**20, trust_env=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str) -> Any:
        """The JSON document at ``path``."""
        async with self._request("GET", path) as response:
            try:
                return await response.json(content_type=None)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise NotSglangError(f"{self.url}{path} does not answer JSON: is this an SGLang server?") from error

    async def load(self) -> dict[str, Any]:
        """The load report of the server's one scheduler."""
        report = await self.get("/v1/loads")
        loads = report.get("loads") if isinstance(report, dict) else None
        if not loads:
            raise NotSglangError(f"{self.url}/v1/loads has no loads: SGLang 0.5.23 or later is needed")
        if len(loads) > 1:
            raise ServerMisbehavedError(
                f"{self.url} has {len(loads)} data-parallel ranks; calibrate one rank at a time"
            )
        return dict(loads[0])

    async def is_ready(self) -> bool:
        """Whether the server says so; while a model loads it refuses connections, or answers nothing."""
        try:
            async with self._session.get(self.url + "/ready", timeout=aiohttp.ClientTimeout(total=5)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def flush_cache(self) -> None:
        """Empty the prefix cache; the server may wait for a moment, as it counts as busy what it has just finished."""
        async with self._request("POST", "/flush_cache", params={"timeout": _FLUSH_WITHIN_S}) as response:
            await response.read()

    async def abort_ours(self) -> None:
        """Abort every request of this client that has not come to its end; the server knows whole ids only."""
        for rid in sorted(self._unfinished):
            async with self._request("POST", "/abort_request", json={"rid": rid}) as response:
                await response.read()

    async def generate(
        self, input_ids: Sequence[int], max_new_tokens: int, on_tokens: Callable[[int], None] | None = None
    ) -> Answer:
        """Stream exactly ``max_new_tokens`` tokens after the prompt; ``on_tokens`` is told how many so far."""
        self._sent += 1
        sampling = {"max_new_tokens": max_new_tokens, "ignore_eos": True, "temperature": 0}
        body = {
            "rid": f"{self._prefix}{self._sent:08d}",
            "input_ids": list(input_ids),
            "sampling_params": sampling,
            "stream": True,
        }
        self._unfinished.add(str(body["rid"]))
        payload = json.dumps(body).encode()
        clock = asyncio.get_running_loop().time
        sent_at, sent_wall = clock(), time.time()
        first_wall = sent_wall
        at: list[float] = []
        tokens: list[int] = []
        last = b""
        async with self._request(
            "POST", "/generate", data=payload, headers={"Content-Type": "application/json"}
        ) as response:
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                now = clock()
                # Only the count is read while tokens come: parsing would disturb what is measured.
                found = _COMPLETION_TOKENS.search(line)
                if found is None:
                    raise self._not_an_answer(line)
                if not at:
                    first_wall = time.time()
                at.append(now)
                tokens.append(int(found[1]))
                last = line
                if on_tokens is not None:
                    on_tokens(tokens[-1])
        self._unfinished.discard(str(body["rid"]))
        meta = self._finished(last, max_new_tokens)
        return Answer(sent_at, sent_wall, first_wall, tuple(at), tuple(tokens), meta)

    def _finished(self, last: bytes, max_new_tokens: int) -> dict[str, Any]:
        if not last:
            raise ServerGoneError(f"{self.url}/generate: the server closed the stream before the first token")
        meta: dict[str, Any] = json.loads(last[6:])["meta_info"]
        reason = meta.get("finish_reason")
        if isinstance(reason, dict) and reason.get("type") == "abort":
            raise RefusedError(f"{self.url}/generate: the server aborted a request: {reason.get('message')}")
        if not isinstance(reason, dict) or meta["completion_tokens"] != max_new_tokens:
            raise ServerGoneError(
                f"{self.url}/generate: the stream broke off after {meta['completion_tokens']} of {max_new_tokens} "
                "tokens"
            )
        return meta

    def _not_an_answer(self, line: bytes) -> Exception:
        text = line[6:].decode(errors="replace").strip()
        if '"error"' in text:
            return RefusedError(f"{self.url}/generate: {text[:300]}")
        return NotSglangError(f"{self.url}/generate does not stream what SGLang streams: {text[:200]}")

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        streams = path == "/generate"
        timeout = aiohttp.ClientTimeout(total=None if streams else _CONTROL_TIMEOUT_S, sock_connect=10)
        try:
            async with self._session.request(method, self.url + path, timeout=timeout, **options) as response:
                if response.status != 200:
                    raise self._refused(path, response.status, await response.text())
                yield response
        except aiohttp.ClientConnectorError as error:
            raise ServerGoneError(f"{self.url} cannot be reached: {error.strerror or error}") from error
        except aiohttp.ClientError as error:
            raise ServerGoneError(f"{self.url}{path}: the connection broke: {error}") from error
        except TimeoutError as error:
            raise ServerGoneError(f"{self.url}{path}: no answer within {_CONTROL_TIMEOUT_S:.0f} s") from error

    def _refused(self, path: str, status: int, text: str) -> Exception:
        where, said = f"{self.url}{path}", " ".join(text.split())[:200]
        match status:
            case 401 | 403:
                return RefusedError(
                    f"{where} answers {status}: it wants an API key; name its variable with --api-key-env"
                )
            case 503:
                return RefusedError(f"{where} answers 503, it cannot take requests now: {said}")
            case 404 | 405:
                return NotSglangError(
                    f"{where} answers {status}: this is not an SGLang server (0.5.23 or later is needed)"
                )
            case _:
                return RefusedError(f"{where} answers {status}: {said}")
