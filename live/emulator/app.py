"""An emulated server as an HTTP application."""

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from simcore.remote_profile import RemoteProfile

from .answering import Answering, refusal
from .control import Control
from .engine import Engine
from .remote_control import RemoteControl
from .replies import EMULATOR

__all__ = ["emulator_app"]

_OPEN = ("/health", "/health_generate", "/ready", "/metrics")
"""Paths that SGLang answers without a key."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def emulator_app(engine: Engine, *, incremental: bool = False, api_key: str | None = None) -> web.Application:
    """SGLang's protocol over one engine, or OpenAI's where it is a remote API. ``incremental``: as
    --incremental-streaming-output."""
    answering = Answering(engine, incremental=incremental)
    app = web.Application(client_max_size=64 << 20, middlewares=[_bearer(api_key)] if api_key else [])
    app.on_response_prepare.append(_sign)
    app.add_routes(
        [
            web.post("/v1/completions", answering.completions),
            web.post("/v1/chat/completions", answering.chat),
        ]
    )
    if isinstance(engine.profile, RemoteProfile):
        _add_remote(app, RemoteControl(engine, engine.profile))
    else:
        _add_own(app, answering, Control(engine, engine.profile, answering))
    return app


def _add_remote(app: web.Application, control: RemoteControl) -> None:
    app.add_routes(
        [
            web.get("/health", control.ready),
            web.get("/v1/models", control.models),
            web.get("/server_info", control.server_info),
        ]
    )


def _add_own(app: web.Application, answering: Answering, control: Control) -> None:
    app.add_routes(
        [
            web.post("/generate", answering.generate),
            web.get("/ready", control.ready),
            web.get("/health", control.ready),
            web.get("/health_generate", control.ready),
            web.get("/model_info", control.model_info),
            web.get("/get_model_info", control.model_info),
            web.get("/server_info", control.server_info),
            web.get("/get_server_info", control.server_info),
            web.get("/v1/models", control.models),
            web.get("/v1/loads", control.loads),
            web.get("/metrics", control.metrics),
            web.route("*", "/flush_cache", control.flush_cache),
            web.route("*", "/set_internal_state", control.set_internal_state),
            web.post("/abort_request", control.abort_request),
        ]
    )


async def _sign(_: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = EMULATOR


def _bearer(api_key: str) -> Middleware:
    wanted = f"Bearer {api_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if request.path not in _OPEN and not hmac.compare_digest(given, wanted):
            return refusal(401, "Unauthorized")
        return await handler(request)

    return check
