"""An in-process server with the few endpoints that a calibration uses, for its faults."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

FIRST_TOKEN_S = 0.001
STEP_S = 0.0005
REPORT_S = 0.0005


@dataclass
class FakeSglang:
    """``fault`` is what ``/generate`` does from request number ``fault_at`` on: die, 503, abort or stall."""

    key: str | None = None
    fault: str | None = None
    fault_at: int = 10**9
    foreign_requests: int = 0
    cache_hits: int = 0
    """Cached tokens beside those that the prober caused itself."""
    kv_tokens: int = 4096
    step_s: float = STEP_S
    """What a decode step takes, as it says."""
    generated: int = 0
    running: int = 0
    moments: list[float] = field(default_factory=lambda: [0.0] * 6)
    prefill_tokens: int = 0
    prefill_us: int = 0
    aborted: list[str] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[str]:
        app = web.Application(middlewares=[self._check_key])
        app.add_routes(
            [
                web.get("/ready", self._ok),
                web.get("/server_info", self._server_info),
                web.get("/model_info", self._model_info),
                web.get("/v1/loads", self._loads),
                web.post("/flush_cache", self._flush),
                web.post("/abort_request", self._abort),
                web.post("/generate", self._generate),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.Response(status=401, text="Unauthorized")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _ok(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _flush(self, request: web.Request) -> web.Response:
        self.prompts.clear()
        return web.Response()

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["rid"])
        return web.Response()

    async def _server_info(self, request: web.Request) -> web.Response:
        info = {
            "version": "0.5.23",
            "served_model_name": "fake",
            "device": "cpu",
            "max_total_num_tokens": self.kv_tokens,
            "max_req_input_len": 1018,
            "internal_states": [{}],
            "schedule_policy": "fcfs",
            "max_queued_requests": None,
            "max_prefill_tokens": 512,
            "chunked_prefill_size": 64,
            "page_size": 1,
            "disable_radix_cache": False,
            "disable_overlap_schedule": True,
            "enable_mixed_chunk": False,
            "schedule_conservativeness": 1.0,
            "cuda_graph_config": {"decode": {"backend": "disabled", "max_bs": 8}},
        }
        return web.json_response(info)

    async def _model_info(self, request: web.Request) -> web.Response:
        return web.json_response({"model_path": "/models/fake"})

    async def _loads(self, request: web.Request) -> web.Response:
        # Else who asks again and again would keep an event loop busy whose clock goes on when nothing is left to do.
        await asyncio.sleep(REPORT_S)
        load = {
            "timestamp": asyncio.get_running_loop().time(),
            "num_running_reqs": self.running + self.foreign_requests,
            "num_waiting_reqs": 0,
            "max_total_num_tokens": self.kv_tokens,
            "max_running_requests": 2,
            "decode_moments": list(self.moments),
            "total_prefill_uncached_tokens": self.prefill_tokens,
            "total_prefill_busy_us": self.prefill_us,
        }
        return web.json_response({"loads": [load]})

    def _cached(self, ids: list[int]) -> int:
        """The longest prefix that an earlier prompt shares."""
        shared = [
            next((i for i, (a, b) in enumerate(zip(ids, old, strict=False)) if a != b), 0) for old in self.prompts
        ]
        self.prompts.append(ids)
        return max(shared, default=0) + self.cache_hits

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.generated += 1
        fault = self.fault if self.generated >= self.fault_at else None
        if fault == "503":
            return web.Response(status=503, text="The request queue is full.")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        ids, wanted = body["input_ids"], body["sampling_params"]["max_new_tokens"]
        cached = self._cached(ids)
        self.running += 1
        try:
            await self._stream(response, ids, wanted, cached, fault)
        finally:
            self.running -= 1
        return response

    async def _stream(
        self, response: web.StreamResponse, ids: list[int], wanted: int, cached: int, fault: str | None
    ) -> None:
        self.prefill_tokens += len(ids) - cached
        self.prefill_us += 1000 + 10 * (len(ids) - cached)
        for token in range(1, wanted + 1):
            await asyncio.sleep(self.step_s if token > 1 else FIRST_TOKEN_S)
            reason: dict[str, object] | None = {"type": "length"} if token == wanted else None
            if fault == "abort":
                reason = {"type": "abort", "message": "no room"}
            if fault == "die" and token > 1:
                assert response._req is not None
                assert response._req.transport is not None
                response._req.transport.abort()
                return
            self._count_step(token)
            meta = {"finish_reason": reason, "completion_tokens": token, "cached_tokens": cached}
            await response.write(b"data: " + json.dumps({"text": "x", "meta_info": meta}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")

    def _count_step(self, token: int) -> None:
        if token > 1:
            for index, value in enumerate((1.0, float(self.running), 1e6 * self.step_s)):
                self.moments[index] += value / self.running
