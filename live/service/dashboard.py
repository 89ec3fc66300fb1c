"""``/dashboard``: one page, fed by server-sent events."""

import asyncio
import importlib.resources
import json
import statistics
from collections import deque
from typing import Any

from aiohttp import web

from live.routing.fleet import Fleet, Member
from live.streams import StreamReply
from policies import ClusterView, Decision, Hold, Reject, RequestView, Route

from .auth import Keys
from .metrics import ServiceMetrics
from .proxy import error_response

__all__ = ["Dashboard", "Decisions"]

_EVERY_S = 1.0
_DECISIONS = 12


class Decisions:
    """The policy's last ones."""

    def __init__(self) -> None:
        self._last: deque[tuple[float, dict[str, Any]]] = deque(maxlen=_DECISIONS)

    def add(self, request: RequestView, cluster: ClusterView, decision: Decision) -> None:
        """See ``OnDecided``."""
        scores: dict[str, float] | None = None
        match decision:
            case Route(server_id, why):
                said, scores = server_id, {name: round(score, 4) for name, score in why.items()} if why else None
            case Reject(reason):
                said = f"rejected: {reason}"
            case Hold():
                said = "held"
        load = {server.server_id: server.in_flight_requests for server in cluster.servers}
        shown = {"request": request.request_id, "said": said, "scores": scores, "in_flight": load}
        self._last.append((cluster.now, shown))

    def told(self, now: float) -> list[dict[str, Any]]:
        """The newest first."""
        return [{"ago_s": now - at, **shown} for at, shown in reversed(self._last)]


class Dashboard:
    """Shows the fleet, the latencies of the last requests and the policy's last decisions."""

    def __init__(self, fleet: Fleet, metrics: ServiceMetrics, keys: Keys, decisions: Decisions) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._keys = keys
        self._decisions = decisions
        self._page = (importlib.resources.files("live.service") / "dashboard.html").read_text(encoding="utf-8")

    async def page(self, _: web.Request) -> web.Response:
        """``GET /dashboard``."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return web.Response(text=self._page, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def events(self, request: web.Request) -> web.StreamResponse:
        """``GET /dashboard/events``: the state, once a second."""
        if not self._keys.may_look(request):
            return error_response(401, "the admin key is missing or wrong", "unauthorized")
        reply = StreamReply(request, 200, (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")), None)
        await reply.open()
        while request.transport is not None and not request.transport.is_closing():
            reply.send(b"data: " + json.dumps(self.state()).encode() + b"\n\n")
            await asyncio.sleep(_EVERY_S)
        return reply.response

    def state(self) -> dict[str, Any]:
        """All that the page shows."""
        driver = self._fleet.driver
        return {
            "policy": driver.policy.name,
            "queued": driver.queued_requests,
            "outcomes": self._metrics.outcomes,
            "servers": [self._server(member) for member in self._fleet.members.values()],
            "decisions": self._decisions.told(driver.now()),
        }

    def _server(self, member: Member) -> dict[str, Any]:
        state, report = self._fleet.driver.servers[member.server_id], member.report
        mine = [ended for ended in self._metrics.recent if ended.server_id == member.server_id]
        return {
            "id": member.server_id,
            "url": member.backend.origin.url,
            "emulator": member.facts.is_emulator,
            "state": _state(member),
            "in_flight": state.in_flight_requests,
            "cap": state.max_running_requests,
            "running": report.running_requests if report else None,
            "waiting": report.queued_requests if report else None,
            "kv_share": _share(report.kv_tokens_used, report.kv_tokens_capacity) if report else None,
            "tokens_per_s": report.throughput_tps if report else None,
            "report_age_s": self._fleet.driver.now() - report.reported_at if report else None,
            "ttft_p50_s": _median([ended.ttft_s for ended in mine if ended.ttft_s is not None]),
            "e2e_p50_s": _median([ended.e2e_s for ended in mine if ended.outcome == "finished"]),
        }


def _state(member: Member) -> str:
    if not member.ready:
        return "down"
    if member.draining:
        return "draining"
    return "up" if member.breaker.state == "closed" else f"breaker {member.breaker.state.replace('_', ' ')}"


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part is not None and whole else None


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
