"""SGLang servers, and emulated ones."""

import json
from collections.abc import Set
from typing import Any

import aiohttp

from live.upstream.origin import Origin
from policies.ledger import ServerReport

from .base import Backend, BackendError, Facts, LiveRequest, Reader, number_of, prometheus_sums
from .means import GrowingMeans, GrowingRate

__all__ = ["SGLangBackend"]

_LOADS = frozenset({"running_requests", "queued_requests", "kv_tokens_used", "kv_tokens_capacity", "throughput_tps"})
_METRICS = frozenset({"mean_ttft_s", "mean_tpot_s"})
_BY_METRICS = _METRICS | {"throughput_tps"}
_FLUSH_WITHIN_S = 2
_NAMES = frozenset(
    f"sglang:{name}"
    for name in (
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
        "inter_token_latency_seconds_sum",
        "inter_token_latency_seconds_count",
    )
)


class SGLangBackend(Backend):
    """Load by ``/v1/loads``; latencies by ``/metrics``, which needs --enable-metrics; aborts by rid, which SGLang
    matches by prefix, so ours are all of one length."""

    name = "sglang"
    paths = frozenset({"/generate", "/v1/completions", "/v1/chat/completions"})
    generate = "/generate"
    pushes_caps = True

    def __init__(self, origin: Origin, session: aiohttp.ClientSession, api_key: str | None = None) -> None:
        super().__init__(origin, session, api_key)
        self._ttft = GrowingMeans()
        self._tpot = GrowingMeans()
        self._rate = GrowingRate()

    async def connect(self) -> Facts:
        info = await self.get_json("/server_info")
        model = (await self.get_json("/model_info")).get("served_model_name") or info.get("served_model_name")
        if not isinstance(model, str):
            raise BackendError(f"{self.origin.url}/model_info has no served_model_name")
        metrics = await self.get_text("/metrics")
        with_metrics = metrics is not None and "sglang:" in metrics
        self.reports = _LOADS | (_METRICS if with_metrics else frozenset())
        emulator = info.get("emulator")
        return Facts(
            model=model,
            version=info.get("version"),
            max_running_requests=info.get("max_running_requests"),
            kv_tokens_capacity=info.get("max_total_num_tokens"),
            is_emulator=emulator is not None,
            speed=float(emulator["speed"]) if emulator else 1.0,
            extra=info,
        )

    async def is_ready(self) -> bool:
        async with self.session.get(self.origin.url + "/ready", headers=self.headers) as response:
            if response.status != 404:
                return response.status == 200
        # Servers before 0.5.20 have only /health.
        async with self.session.get(self.origin.url + "/health", headers=self.headers) as response:
            return response.status == 200

    async def load(self, now: float, wanted: Set[str]) -> ServerReport:
        loads = (await self.get_json("/v1/loads")).get("loads")
        if not isinstance(loads, list) or not loads:
            raise BackendError(f"{self.origin.url}/v1/loads has no loads")

        def total(key: str) -> int:
            return sum(number_of(load, key, f"{self.origin.url}/v1/loads") for load in loads)

        throughput = sum(float(load.get("gen_throughput", 0.0)) for load in loads)
        ttft = tpot = None
        # A scrape of /metrics holds the HTTP process up for 10 ms and more: it merges files of all processes.
        if self.reports >= _METRICS and wanted & _BY_METRICS:
            sums = prometheus_sums(await self.get_text("/metrics") or "", _NAMES)
            ttft = _mean(sums, self._ttft, "time_to_first_token_seconds")
            tpot = _mean(sums, self._tpot, "inter_token_latency_seconds")
            throughput = self._rate.look(now, _tokens(sums))
        return ServerReport(
            reported_at=now,
            running_requests=total("num_running_reqs"),
            queued_requests=total("num_waiting_reqs"),
            kv_tokens_used=total("num_used_tokens"),
            kv_tokens_capacity=total("max_total_num_tokens"),
            throughput_tps=throughput,
            mean_ttft_s=ttft,
            mean_tpot_s=tpot,
        )

    def live_body(self, request: LiveRequest, rid: str) -> bytes:
        sampling: dict[str, Any] = {
            "temperature": 0.0,
            "max_new_tokens": request.max_new_tokens,
            "ignore_eos": request.ignore_eos,
        }
        if request.output_tokens != request.max_new_tokens:
            sampling["custom_params"] = {"simroute_output_tokens": request.output_tokens}
        body = {"rid": rid, "input_ids": request.prompt, "sampling_params": sampling, "stream": True}
        return json.dumps(body, separators=(",", ":")).encode()

    def reader(self) -> Reader:
        return _GenerateReader()

    def with_rid(self, body: bytes, parsed: dict[str, Any], rid: str) -> bytes:
        if "rid" not in parsed and body[:1] == b"{" and parsed:
            return b'{"rid":"' + rid.encode() + b'",' + body[1:]
        return json.dumps({**parsed, "rid": rid}).encode()

    async def abort(self, rid: str) -> None:
        async with self.session.post(self.origin.url + "/abort_request", headers=self.headers, json={"rid": rid}):
            pass

    async def flush(self) -> None:
        url = f"{self.origin.url}/flush_cache"
        # For a moment a server counts as busy what it has just finished, and would refuse.
        async with self.session.post(url, headers=self.headers, params={"timeout": _FLUSH_WITHIN_S}) as response:
            if response.status != 200:
                raise BackendError(f"{url}: {response.status} {await response.text()}")

    async def set_cap(self, limit: int) -> None:
        url, document = f"{self.origin.url}/set_internal_state", {"server_args": {"pp_max_micro_batch_size": limit}}
        async with self.session.post(url, headers=self.headers, json=document) as response:
            answer = await response.text()
        if response.status != 200 or "true" not in answer.lower():
            raise BackendError(f"{url} refuses pp_max_micro_batch_size {limit}: {response.status} {answer[:100]}")

    def refusal_in_stream(self, first: bytes) -> str | None:
        if b'"abort"' not in first and b'"error"' not in first:
            return None
        reader = _GenerateReader()
        reader.feed(first)
        if reader.status == 503:
            return reader.failure
        return None


def _tokens(sums: dict[str, float]) -> float:
    """Generated so far: first tokens and all that came after one. ``generation_tokens_total`` counts a whole answer at
    its end, so its rate would jump."""
    names = ("time_to_first_token_seconds_count", "inter_token_latency_seconds_count")
    return sum(sums.get(f"sglang:{name}", 0.0) for name in names)


def _mean(sums: dict[str, float], means: GrowingMeans, name: str) -> float | None:
    return means.look(sums.get(f"sglang:{name}_sum", 0.0), sums.get(f"sglang:{name}_count", 0.0))


class _GenerateReader(Reader):
    """``/generate``: ids are cumulative, or those of the event with --incremental-streaming-output."""

    status: int | None = None

    def _on_line(self, text: bytes) -> None:
        super()._on_line(text)
        if self.failure is not None and self.status is None and b'"code":503' in text.replace(b" ", b""):
            self.status = 503

    def on_event(self, document: dict[str, Any]) -> None:
        meta = document.get("meta_info")
        if not isinstance(meta, dict):
            # An event of an OpenAI endpoint; only its errors matter here.
            return
        self.meta = meta
        finish = meta.get("finish_reason")
        if isinstance(finish, dict) and finish.get("type") == "abort":
            self.failure = str(finish.get("message"))
            self.status = finish.get("status_code")
            return
        self.tokens = int(meta.get("completion_tokens", 0))
        ids = document.get("output_ids") or []
        if len(ids) == self.tokens:
            self.output_ids = ids
        else:
            self.output_ids += ids
