"""Text Generation Inference."""

import json
from collections.abc import Set
from typing import Any

import aiohttp

from live.upstream.origin import Origin
from policies.ledger import ServerReport

from .base import Backend, BackendError, Facts, LiveRequest, Reader, prometheus_sums

__all__ = ["TgiBackend"]

_NAMES = frozenset({"tgi_batch_current_size", "tgi_queue_size"})


class TgiBackend(Backend):
    """``/generate`` and ``/generate_stream``, ``/info``, ``/health``; load by ``/metrics``."""

    name = "tgi"
    paths = frozenset({"/generate", "/generate_stream", "/v1/completions", "/v1/chat/completions"})
    generate = "/generate_stream"

    def __init__(self, origin: Origin, session: aiohttp.ClientSession, api_key: str | None = None) -> None:
        super().__init__(origin, session, api_key)
        self._max_tokens: int | None = None

    async def connect(self) -> Facts:
        info = await self.get_json("/info")
        model = info.get("model_id")
        if not isinstance(model, str):
            raise BackendError(f"{self.origin.url}/info has no model_id")
        metrics = await self.get_text("/metrics")
        if metrics is not None and "tgi_" in metrics:
            self.reports = frozenset({"running_requests", "queued_requests"})
        return Facts(
            model=model,
            version=info.get("version"),
            max_running_requests=info.get("max_concurrent_requests"),
            kv_tokens_capacity=info.get("max_batch_total_tokens"),
            extra=info,
        )

    async def is_ready(self) -> bool:
        async with self.session.get(self.origin.url + "/health", headers=self.headers) as response:
            return response.status == 200

    async def load(self, now: float, wanted: Set[str]) -> ServerReport:
        if not self.reports:
            return ServerReport(reported_at=now)
        sums = prometheus_sums(await self.get_text("/metrics") or "", _NAMES)
        return ServerReport(
            reported_at=now,
            running_requests=int(sums.get("tgi_batch_current_size", 0)),
            queued_requests=int(sums.get("tgi_queue_size", 0)),
        )

    def live_body(self, request: LiveRequest, rid: str) -> bytes:
        # TGI takes text only: a word a token is near what tokenizers make of it.
        text = " ".join(f"w{token}" for token in request.prompt)
        parameters: dict[str, Any] = {"max_new_tokens": request.max_new_tokens, "details": True}
        if not request.ignore_eos:
            parameters["stop"] = []
        return json.dumps({"inputs": text, "parameters": parameters}, separators=(",", ":")).encode()

    def reader(self) -> Reader:
        return _TokenReader()


class _TokenReader(Reader):
    """One event a token; the last one has the details. There is no end mark besides."""

    def on_event(self, document: dict[str, Any]) -> None:
        token = document.get("token")
        if isinstance(token, dict):
            self.tokens += 1
            if isinstance(token.get("id"), int):
                self.output_ids.append(token["id"])
        if document.get("generated_text") is not None:
            self.meta = document.get("details") or {}
            self.complete = True
