"""The endpoints that tell of a server's state or change it."""

import time
from typing import Any

from aiohttp import web

from simcore.launch import SchedulerSettings
from simcore.profile import ServiceProfile
from simcore.server.continuous import ContinuousServer

from .answering import Answering, refusal
from .asks import BadAskError, read_json
from .engine import Engine
from .replies import EMULATOR

__all__ = ["Control"]

VERSION = "0.5.23"
"""The SGLang whose protocol this is."""


class Control:
    """Status, loads, metrics, and what may be set at run time."""

    def __init__(self, engine: Engine, profile: ServiceProfile, answering: Answering) -> None:
        self._engine = engine
        self._profile = profile
        self._answering = answering
        self._limit = profile.settings.max_running_requests
        self._last_tokens = (0.0, 0)

    async def ready(self, request: web.Request) -> web.Response:
        """``/ready``, ``/health`` and ``/health_generate``."""
        return web.Response(headers={"X-Simroute-Emulator": EMULATOR})

    async def model_info(self, request: web.Request) -> web.Response:
        """``GET /model_info``."""
        model = self._profile.model
        return web.json_response(
            {"model_path": model, "served_model_name": model, "is_generation": True, "emulator": EMULATOR}
        )

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``."""
        profile = self._profile
        card = {
            "id": profile.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": EMULATOR,
            "root": profile.model,
            "parent": None,
            "max_model_len": profile.context_length,
        }
        return web.json_response({"object": "list", "data": [card]})

    async def server_info(self, request: web.Request) -> web.Response:
        """``GET /server_info``; ``emulator`` holds the model's own counters."""
        engine = self._engine
        engine.catch_up()
        profile, telemetry = self._profile, engine.member.server.telemetry
        totals = telemetry.totals
        return web.json_response(
            {
                **_launch_arguments(profile.settings),
                "version": VERSION,
                "served_model_name": profile.model,
                "context_length": profile.context_length,
                "max_req_input_len": engine.member.max_prompt_tokens + 1,
                "max_total_num_tokens": profile.kv_tokens_capacity,
                "internal_states": [{"effective_max_running_requests_per_dp": self._limit}],
                "emulator": {
                    "name": EMULATOR,
                    "profile": profile.name,
                    "speed": engine.clock.speed,
                    "late_s": engine.late_s,
                    "busy_s": totals.busy_s,
                    "prefill_s": totals.prefill_s,
                    "decode_s": totals.decode_s,
                    "mixed_s": totals.mixed_s,
                    "steps": totals.steps,
                    "prefill_tokens": totals.prefill_tokens,
                    "cached_tokens": telemetry.cached_tokens,
                    "decode_tokens": totals.decode_tokens,
                    "retractions": telemetry.retractions,
                    "peak_kv_tokens": engine.member.server.peak_kv_tokens,
                    "peak_running": telemetry.peak_running,
                },
            }
        )

    async def loads(self, request: web.Request) -> web.Response:
        """``GET /v1/loads``."""
        now = self._engine.catch_up()
        load, capacity = self._engine.member.server.load(now), self._profile.kv_tokens_capacity
        return web.json_response(
            {
                "timestamp": time.time(),
                "version": VERSION,
                "accelerator": EMULATOR,
                "loads": [
                    {
                        "dp_rank": 0,
                        "num_running_reqs": load.running,
                        "num_waiting_reqs": load.queued,
                        "num_used_tokens": load.kv_tokens_used,
                        "num_total_tokens": load.kv_tokens_used,
                        "max_total_num_tokens": capacity,
                        "max_running_requests": self._limit,
                        "token_usage": load.kv_tokens_used / capacity,
                        "gen_throughput": self._throughput(now, load.generated_tokens),
                    }
                ],
            }
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """``GET /metrics``: what SGLang gives with --enable-metrics, as far as the model knows it."""
        now = self._engine.catch_up()
        load, telemetry = self._engine.member.server.load(now), self._engine.member.server.telemetry
        samples: dict[str, float] = {
            "num_running_reqs": load.running,
            "num_queue_reqs": load.queued,
            "num_used_tokens": load.kv_tokens_used,
            "max_total_num_tokens": self._profile.kv_tokens_capacity,
            "generation_tokens_total": load.generated_tokens,
            "cached_tokens_total": telemetry.cached_tokens,
            "num_requests_total": self._answering.requests,
            "num_aborted_requests_total": self._answering.aborted,
            "time_to_first_token_seconds_sum": telemetry.ttft_sum_s,
            "time_to_first_token_seconds_count": telemetry.ttft_count,
            "inter_token_latency_seconds_sum": load.gap_sum_s,
            "inter_token_latency_seconds_count": load.gaps,
        }
        labels = f'{{model_name="{self._profile.model}",engine_type="{EMULATOR}"}}'
        text = "".join(f"sglang:{name}{labels} {value}\n" for name, value in samples.items())
        return web.Response(text=text)

    async def flush_cache(self, request: web.Request) -> web.Response:
        """``/flush_cache``: 400 while requests are under way."""
        if self._engine.flush():
            return web.Response(text="Cache flushed.\n")
        return web.Response(text="Flush cache failed: requests are under way.\n", status=400)

    async def abort_request(self, request: web.Request) -> web.Response:
        """``POST /abort_request``."""
        try:
            body = await read_json(request)
        except BadAskError as error:
            return refusal(400, str(error))
        self._answering.abort(str(body.get("rid") or ""), everything=bool(body.get("abort_all")))
        return web.Response()

    async def set_internal_state(self, request: web.Request) -> web.Response:
        """``/set_internal_state``: the run-time cap, and nothing else."""
        try:
            given = (await read_json(request)).get("server_args")
        except BadAskError as error:
            return refusal(400, str(error))
        return web.json_response([self._set(given)])

    def _set(self, given: Any) -> bool:
        if not isinstance(given, dict) or set(given) != {"pp_max_micro_batch_size"}:
            return False
        limit, most = given["pp_max_micro_batch_size"], self._profile.settings.max_running_requests
        if not isinstance(limit, int) or not 1 <= limit <= most:
            return False
        if not isinstance(self._engine.member.server, ContinuousServer):
            return False
        self._engine.set_max_running_requests(limit)
        self._limit = limit
        return True

    def _throughput(self, now: float, generated: int) -> float:
        """Tokens a second since the loads were last asked for."""
        then, before = self._last_tokens
        self._last_tokens = (now, generated)
        return (generated - before) / (now - then) if now > then else 0.0


def _launch_arguments(settings: SchedulerSettings) -> dict[str, Any]:
    """Under SGLang's names and ours, which differ for its on and off switches."""
    graphs = settings.cuda_graph_max_batch
    return {
        **settings.model_dump(mode="json"),
        "device": EMULATOR,
        "disable_radix_cache": not settings.radix_cache,
        "disable_overlap_schedule": not settings.overlap,
        "enable_mixed_chunk": settings.mixed_chunk,
        "cuda_graph_config": {"decode": {"backend": "full" if graphs else "disabled", "max_bs": graphs}},
    }
