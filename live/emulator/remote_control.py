"""What an emulated remote API tells of itself: little, as real ones do. And what only an emulator has: its counters."""

import time

from aiohttp import web

from simcore.remote_profile import RemoteProfile
from simcore.server.remote import RemoteServer

from .engine import Engine
from .replies import EMULATOR

__all__ = ["RemoteControl"]


class RemoteControl:
    """``/health``, ``/v1/models`` and ``/server_info`` over one engine of a remote profile."""

    def __init__(self, engine: Engine, profile: RemoteProfile) -> None:
        self._engine = engine
        self._profile = profile

    async def ready(self, request: web.Request) -> web.Response:
        """``/health``."""
        return web.Response(headers={"X-Simroute-Emulator": EMULATOR})

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``; ``emulator`` says that it is one, and how fast."""
        card = {
            "id": self._profile.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": EMULATOR,
            "emulator": {"name": EMULATOR, "profile": self._profile.name, "speed": self._engine.clock.speed},
        }
        return web.json_response({"object": "list", "data": [card]})

    async def server_info(self, request: web.Request) -> web.Response:
        """``GET /server_info``: the emulator's counters; null for what cannot be known of an API."""
        engine = self._engine
        engine.catch_up()
        server = engine.member.server
        assert isinstance(server, RemoteServer)
        counters = {
            "name": EMULATOR,
            "profile": self._profile.name,
            "speed": engine.clock.speed,
            "late_s": engine.late_s,
            **dict.fromkeys(("busy_s", "prefill_s", "decode_s", "mixed_s")),
            "steps": 0,
            "prefill_tokens": server.prompt_tokens,
            "cached_tokens": 0,
            "decode_tokens": server.later_tokens,
            "retractions": 0,
            "peak_running": server.telemetry.peak_running,
        }
        return web.json_response({"emulator": counters})
