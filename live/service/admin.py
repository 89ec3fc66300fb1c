"""``/admin``: change servers and policy while requests run."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from live.backends import BackendError
from live.routing.fleet import Fleet, Member
from policies import PolicyError
from policies.controllers import Controller
from simcore.errors import UserError
from simcore.profile_launch import explain

from .auth import Keys
from .config import ServerEntry
from .proxy import error_response
from .servers import Connector, check_policy

__all__ = ["Admin"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _ServerChange(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    max_running_requests: int | None = Field(default=None, ge=1)
    draining: bool | None = None


class _PolicyChange(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    queue_order: str | None = None


class Admin:
    """The handlers. A mistake is answered with 400 and changes nothing."""

    def __init__(
        self, fleet: Fleet, connector: Connector, keys: Keys, seed: int, controller: Controller | None
    ) -> None:
        self._fleet = fleet
        self._connector = connector
        self._keys = keys
        self._seed = seed
        self._controller = controller

    def routes(self) -> list[web.RouteDef]:
        """All of them, each behind the admin key."""
        return [
            web.get("/admin/servers", self._guarded(self.list_servers)),
            web.post("/admin/servers", self._guarded(self.add_server)),
            web.patch("/admin/servers/{id}", self._guarded(self.change_server)),
            web.delete("/admin/servers/{id}", self._guarded(self.remove_server)),
            web.get("/admin/policy", self._guarded(self.show_policy)),
            web.patch("/admin/policy", self._guarded(self.switch_policy)),
        ]

    async def list_servers(self, _: web.Request) -> web.Response:
        """``GET /admin/servers``."""
        return web.json_response({"servers": [self._described(member) for member in self._fleet.members.values()]})

    async def add_server(self, request: web.Request) -> web.Response:
        """``POST /admin/servers`` with an entry as in servers.yaml; its id must be given."""
        entry = ServerEntry.model_validate(await _body(request))
        if entry.id is None:
            raise UserError("give the new server an id")
        backend, facts = await self._connector.connect(entry)
        member = self._fleet.add(entry.config(entry.id, facts.model), backend, facts)
        return web.json_response(self._described(member), status=201)

    async def change_server(self, request: web.Request) -> web.Response:
        """``PATCH /admin/servers/{id}``: ``max_running_requests`` (null for no cap), ``draining``."""
        member, body = self._member(request), await _body(request)
        change = _ServerChange.model_validate(body)
        pushed: dict[str, Any] = {}
        if "max_running_requests" in body:
            if self._controller is not None:
                raise UserError(f"the controller {self._controller.name} decides on caps")
            self._fleet.set_cap(member.server_id, change.max_running_requests)
            pushed = await self._push(member)
        if change.draining is not None:
            self._fleet.drain(member.server_id, draining=change.draining)
        return web.json_response({**self._described(member), **pushed})

    async def remove_server(self, request: web.Request) -> web.Response:
        """``DELETE /admin/servers/{id}``: 409 while requests are in flight there, and from then on it drains."""
        member = self._member(request)
        self._fleet.drain(member.server_id, draining=True)
        in_flight = self._fleet.driver.servers[member.server_id].in_flight_requests
        if in_flight:
            message = f"{in_flight} requests are in flight; the server drains, ask again when they have ended"
            return error_response(409, message, "draining")
        self._fleet.remove(member.server_id)
        return web.Response(status=204)

    async def show_policy(self, _: web.Request) -> web.Response:
        """``GET /admin/policy``."""
        return web.json_response({"name": self._fleet.driver.policy.name})

    async def switch_policy(self, request: web.Request) -> web.Response:
        """``PATCH /admin/policy``: requests that wait or run stay."""
        change = _PolicyChange.model_validate(await _body(request))
        check_policy(self._fleet, change.name, change.params, change.queue_order)
        self._fleet.driver.switch_policy(change.name, change.params, self._seed, change.queue_order)
        return web.json_response({"name": self._fleet.driver.policy.name})

    # -- helpers -------------------------------------------------------------------------------------------------

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if not self._keys.admin_may(request):
                return error_response(401, "the admin key is missing or wrong, or the service has none", "unauthorized")
            try:
                return await handler(request)
            except ValidationError as error:
                return error_response(400, explain("the body", error), "invalid_request_error")
            except (UserError, PolicyError) as error:
                return error_response(400, str(error), "invalid_request_error")

        return guarded

    def _member(self, request: web.Request) -> Member:
        server_id = request.match_info["id"]
        if server_id not in self._fleet.members:
            raise UserError(f"no server {server_id!r}; there are: {', '.join(self._fleet.members)}")
        return self._fleet.members[server_id]

    async def _push(self, member: Member) -> dict[str, Any]:
        """Push the cap down to a server that has one of its own; the router's holds already."""
        most = member.facts.max_running_requests
        limit = min(member.cap or most or 0, most or member.cap or 0)
        if not member.backend.pushes_caps or not limit:
            return {"pushed": False}
        try:
            await member.backend.set_cap(limit)
        except (aiohttp.ClientError, BackendError, OSError, TimeoutError) as error:
            return {"pushed": False, "push_error": str(error)}
        return {"pushed": True}

    def _described(self, member: Member) -> dict[str, Any]:
        state = self._fleet.driver.servers[member.server_id]
        return {
            "id": member.server_id,
            "url": member.backend.origin.url,
            "backend": member.backend.name,
            "model": member.facts.model,
            "ready": member.ready,
            "draining": member.draining,
            "breaker": member.breaker.state,
            "max_running_requests": member.cap,
            "in_flight_requests": state.in_flight_requests,
            "emulator": member.facts.is_emulator,
        }


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise UserError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise UserError("the body is not a JSON object")
    return body
