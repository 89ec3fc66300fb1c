"""The endpoints that clients call."""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from live.backends import BACKENDS, Backend
from live.routing.air import Air
from live.routing.flight import QUEUE_TIMEOUT, Flight
from live.streams import StreamReply
from live.upstream.head import request_bytes
from policies import RequestView
from policies.predictors import RunningMean

from .auth import Keys
from .headers import request_headers, response_headers
from .metrics import Ended, Outcome, ServiceMetrics
from .reading import BadRequestError, parse_body, view_of
from .relay import Relay

__all__ = ["GENERATING", "Proxy", "error_response"]

GENERATING: Final = sorted(frozenset[str]().union(*(backend.paths for backend in BACKENDS.values())))
QUEUE_FULL: Final = "the router's queue is full"

_PASSED_STATUS: Final = frozenset({429, 503, 504})


@dataclass(frozen=True, slots=True)
class _Refusal:
    """How a request that gets no answer is told so."""

    status: int
    kind: str
    outcome: Outcome


def error_response(status: int, message: str, kind: str) -> web.Response:
    """An error as OpenAI's clients read it."""
    headers = {"Retry-After": "1"} if status in (429, 503) else {}
    document = {"error": {"message": message, "type": kind, "code": status}}
    return web.json_response(document, status=status, headers=headers)


class Proxy:
    """Takes requests in, and hands each to a flight. ``draining``: no more are taken."""

    def __init__(self, air: Air, keys: Keys, metrics: ServiceMetrics, expected: RunningMean) -> None:
        self.draining = False
        self._air = air
        self._keys = keys
        self._metrics = metrics
        self._expected = expected
        self._ids = itertools.count()

    async def models(self, request: web.Request) -> web.Response:
        """``GET /v1/models``: all that are served."""
        if not self._keys.client_may(request):
            return self._unauthorised()
        cards = [
            {"id": model, "object": "model", "created": 0, "owned_by": "simroute", "root": model}
            for model in self._air.fleet.models
        ]
        return web.json_response({"object": "list", "data": cards})

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Any of the generating endpoints."""
        started = time.perf_counter()
        if not self._keys.client_may(request):
            return self._unauthorised()
        try:
            body = await request.read()
            parsed = parse_body(body)
            model = self._model(parsed)
        except BadRequestError as error:
            return self._refused("unknown", str(error), _Refusal(400, "invalid_request_error", "rejected"))
        except web.HTTPRequestEntityTooLarge:
            message = "the body is larger than this router takes"
            return self._refused("unknown", message, _Refusal(413, "request_too_large", "rejected"))
        refusal = self._turned_away(request.path, model)
        if refusal is not None:
            # A metric's label is kept for ever, so none is made of a name that a client made up.
            return self._refused(model if model in self._air.fleet.models else "unknown", *refusal)
        return await self._fly(request, body, parsed, model, started)

    # -- before the router ---------------------------------------------------------------------------------------

    def _model(self, parsed: Mapping[str, Any]) -> str:
        """The model asked for. A request that names none means the only one; SGLang's own endpoint names none."""
        named, models = parsed.get("model"), self._air.fleet.models
        if isinstance(named, str) and named:
            return named
        if len(models) != 1:
            raise BadRequestError(f"say which model: one of {', '.join(models)}")
        return models[0]

    def _turned_away(self, path: str, model: str) -> tuple[str, _Refusal] | None:
        fleet = self._air.fleet
        if self.draining:
            return "the router is shutting down", _Refusal(503, "draining", "rejected")
        members = [member for member in fleet.members.values() if member.facts.model == model]
        if not members:
            known = ", ".join(fleet.models)
            return f"no server serves the model {model!r}; there are: {known}", _Refusal(404, "no_model", "rejected")
        if not all(path in member.backend.paths for member in members):
            return f"not every server of {model!r} has {path}", _Refusal(404, "no_path", "rejected")
        if not fleet.has_open(model):
            return f"no server of {model!r} is up", _Refusal(503, "no_server", "rejected")
        return None

    # -- a flight ------------------------------------------------------------------------------------------------

    async def _fly(
        self, request: web.Request, body: bytes, parsed: dict[str, Any], model: str, started: float
    ) -> web.StreamResponse:
        air = self._air
        relay = Relay(air.loop)
        request_id = next(self._ids)
        relay.flight = flight = Flight(air, request_id, _request_maker(request, body, parsed), relay)
        hashes = "prefix_hashes" in air.driver.policy.needs
        now = air.driver.now()
        view = view_of(request_id, model, parsed, request.headers, now, self._expected, with_hashes=hashes)
        flight.depart(view)
        try:
            if not await relay.begun:
                return self._unanswered(model, relay, flight)
            return await self._answer(request, view, relay, started)
        except asyncio.CancelledError:
            flight.cancel()
            self._metrics.count(Ended(model, "cancelled", "client_gone"))
            raise
        except ConnectionError:
            # The client left while its answer's head was on the way.
            flight.cancel()
            self._metrics.count(Ended(model, "cancelled", "client_gone"))
            return web.Response(status=499)

    async def _answer(
        self, request: web.Request, view: RequestView, relay: Relay, started: float
    ) -> web.StreamResponse:
        head = relay.head
        assert head is not None
        reply = StreamReply(request, head.status, response_headers(head, relay.server_id), head.length)
        await reply.open()
        relay.attach(reply)
        await relay.over
        ended = Ended(view.model, "finished" if head.status < 400 else "failed", f"upstream_{head.status}")
        ended.wait_s = relay.flight.dispatched_at - view.arrived_at
        relay.note(ended)
        if relay.broken is not None:
            ended.outcome, ended.cause = "failed", "lost_mid_stream"
            if relay.is_stream:
                member = self._air.fleet.members[relay.server_id]
                reply.send(member.backend.error_event(relay.broken))
            else:
                reply.cut()
        finished = time.perf_counter()
        ended.e2e_s = finished - started
        if relay.is_stream and relay.first_byte_at is not None:
            ended.ttft_s = ended.e2e_s - (self._air.loop.time() - relay.first_byte_at)
        if ended.outcome == "finished":
            self._expected.saw(view.prompt_tokens, view.priority, ended.output_tokens)
        response = await reply.end()
        self._metrics.count(ended)
        return response

    def _unanswered(self, model: str, relay: Relay, flight: Flight) -> web.Response:
        if relay.refused is None:
            status = flight.last_status if flight.last_status in _PASSED_STATUS else 502
            return self._refused(model, relay.failed or "", _Refusal(status, "upstream_error", "failed"))
        if relay.refused == QUEUE_TIMEOUT:
            return self._refused(model, relay.refused, _Refusal(504, "queue_timeout", "rejected"))
        kind = "queue_full" if relay.refused == QUEUE_FULL else "policy"
        return self._refused(model, relay.refused, _Refusal(429, kind, "rejected"))

    def _refused(self, model: str, message: str, refusal: _Refusal) -> web.Response:
        self._metrics.count(Ended(model, refusal.outcome, refusal.kind))
        return error_response(refusal.status, message, refusal.kind)

    def _unauthorised(self) -> web.Response:
        return self._refused("unknown", "the key is missing or wrong", _Refusal(401, "unauthorized", "rejected"))


def _request_maker(request: web.Request, body: bytes, parsed: dict[str, Any]) -> Callable[[Backend, str], bytes]:
    headers = request_headers(request.headers)
    path = request.raw_path

    def make(backend: Backend, rid: str) -> bytes:
        with_rid = backend.with_rid(*backend.with_real_model(body, parsed), rid)
        target = backend.origin.base_path + path
        return request_bytes("POST", target, backend.origin.host, (*headers, *backend.headers), with_rid)

    return make
