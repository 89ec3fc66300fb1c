"""Servers with the OpenAI interface: vLLM, and any other that is compatible."""

import json
from collections.abc import Set
from typing import Any

import aiohttp

from live.upstream.origin import Origin
from policies.ledger import ServerReport

from .base import Backend, BackendError, Facts, LiveRequest, Reader, prometheus_sums
from .means import GrowingMeans, GrowingRate

__all__ = ["OpenAIBackend"]

_NAMES = frozenset(
    f"vllm:{name}"
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "generation_tokens_total",
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_sum",
        "inter_token_latency_seconds_count",
        "time_per_output_token_seconds_sum",
        "time_per_output_token_seconds_count",
    )
)
_FROM_METRICS = frozenset({"running_requests", "queued_requests", "throughput_tps", "mean_ttft_s", "mean_tpot_s"})


class OpenAIBackend(Backend):
    """Load by vLLM's ``/metrics`` where there is one; a server without it reports nothing."""

    name = "openai"
    paths = frozenset({"/v1/completions", "/v1/chat/completions"})
    generate = "/v1/completions"

    def __init__(self, origin: Origin, session: aiohttp.ClientSession, api_key: str | None = None) -> None:
        super().__init__(origin, session, api_key)
        self._ttft = GrowingMeans()
        self._tpot = GrowingMeans()
        self._rate = GrowingRate()
        self._emulated = False

    async def connect(self) -> Facts:
        models = (await self.get_json("/v1/models")).get("data")
        if not isinstance(models, list) or not models or not isinstance(models[0].get("id"), str):
            raise BackendError(f"{self.origin.url}/v1/models names no model")
        emulator = models[0].get("emulator")
        self._emulated = isinstance(emulator, dict)
        if self.wanted_model is not None and self.wanted_model not in [card.get("id") for card in models]:
            raise BackendError(f"{self.origin.url}/v1/models does not name {self.wanted_model!r}")
        metrics = await self.get_text("/metrics")
        self.reports = _FROM_METRICS if metrics is not None and "vllm:" in metrics else frozenset()
        return Facts(
            model=self.wanted_model or models[0]["id"],
            is_emulator=self._emulated,
            speed=float(emulator["speed"]) if self._emulated else 1.0,
            extra={"emulator": emulator} if self._emulated else {},
        )

    async def is_ready(self) -> bool:
        async with self.session.get(self.origin.url + "/health", headers=self.headers) as response:
            if response.status != 404:
                return response.status == 200
        async with self.session.get(self.origin.url + "/v1/models", headers=self.headers) as response:
            return response.status == 200

    async def load(self, now: float, wanted: Set[str]) -> ServerReport:
        if not self.reports:
            return ServerReport(reported_at=now)
        sums = prometheus_sums(await self.get_text("/metrics") or "", _NAMES)
        gap = "inter_token_latency" if "vllm:inter_token_latency_seconds_count" in sums else "time_per_output_token"
        return ServerReport(
            reported_at=now,
            running_requests=int(sums.get("vllm:num_requests_running", 0)),
            queued_requests=int(sums.get("vllm:num_requests_waiting", 0)),
            throughput_tps=self._rate.look(now, sums.get("vllm:generation_tokens_total", 0.0)),
            mean_ttft_s=self._ttft.look(
                sums.get("vllm:time_to_first_token_seconds_sum", 0.0),
                sums.get("vllm:time_to_first_token_seconds_count", 0.0),
            ),
            mean_tpot_s=self._tpot.look(
                sums.get(f"vllm:{gap}_seconds_sum", 0.0), sums.get(f"vllm:{gap}_seconds_count", 0.0)
            ),
        )

    def live_body(self, request: LiveRequest, rid: str) -> bytes:
        body: dict[str, Any] = {
            "model": request.model,
            "prompt": request.prompt,
            "max_tokens": request.max_new_tokens,
            "ignore_eos": request.ignore_eos,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._emulated and request.output_tokens != request.max_new_tokens:
            body["custom_params"] = {"simroute_output_tokens": request.output_tokens}
        return json.dumps(body, separators=(",", ":")).encode()

    def reader(self) -> Reader:
        return _CompletionReader()


class _CompletionReader(Reader):
    """An event with text counts as one token until the usage at the end says how many there were."""

    def on_event(self, document: dict[str, Any]) -> None:
        if any(choice.get("text") for choice in document.get("choices") or []):
            self.tokens += 1
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.tokens = int(usage.get("completion_tokens", self.tokens))
            details = usage.get("prompt_tokens_details") or {}
            self.meta = {**usage, "cached_tokens": details.get("cached_tokens", 0)}
