"""The way from an entry of servers.yaml to a server, and from servers to what a policy needs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import aiohttp

from live.backends import BACKENDS, Backend, BackendError, Facts
from live.routing.fleet import Fleet
from live.upstream.origin import Origin
from policies import make_order, make_policy
from policies.controllers import Controller, check_controller_needs
from policies.ledger import ServerReport
from policies.needs import check_needs
from policies.queue_orders import FirstComeFirstServed
from simcore.errors import UserError

from .config import ServerEntry, secret

__all__ = ["Connector", "check_controller_needs_met", "check_needs_met", "check_policy"]

_RETRY_S = 0.5


class Connector:
    """Connects servers through one session for control requests."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def connect(self, entry: ServerEntry, *, within_s: float = 0.0) -> tuple[Backend, Facts]:
        """Ask a server who it is. Raises UserError where it cannot be reached in time or is of another kind."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        backend = BACKENDS[entry.backend](Origin(entry.url), self._session, secret(entry.api_key_env))
        backend.wanted_model = entry.upstream_model
        while True:
            try:
                return backend, _renamed(backend, await backend.connect(), entry.model)
            except (aiohttp.ClientError, BackendError, OSError, TimeoutError) as error:
                if loop.time() < deadline:
                    await asyncio.sleep(_RETRY_S)
                    continue
                detail = str(error) or "no answer in time"
                raise UserError(f"{entry.url} cannot be used as a server of kind {entry.backend}: {detail}") from error


def _renamed(backend: Backend, facts: Facts, model: str | None) -> Facts:
    """What the server says of itself, its model under the name that clients have for it."""
    if model is None or model == facts.model:
        return facts
    backend.real_model = facts.model
    return replace(facts, model=model)


def check_policy(fleet: Fleet, name: str, params: Mapping[str, object], order: str | None) -> None:
    """Whether the servers give a policy what it needs. Raises PolicyError."""
    check_needs_met([member.backend for member in fleet.members.values()], name, params, order)


def check_needs_met(backends: Sequence[Backend], name: str, params: Mapping[str, object], order: str | None) -> None:
    """As ``check_policy``, before there is a fleet. An expected output is always there, an SLO never.

    Raises PolicyError.
    """
    policy = make_policy(name, params, seed=0)
    queue_order = make_order(order) if order else (policy.order or FirstComeFirstServed)()
    check_needs(policy, queue_order, {"slo", *_not_reported(backends)})


def check_controller_needs_met(backends: Sequence[Backend], controller: Controller) -> None:
    """Whether the servers report what the controller decides on. Raises PolicyError."""
    check_controller_needs(controller, _not_reported(backends))


def _not_reported(backends: Sequence[Backend]) -> set[str]:
    reported = frozenset.intersection(*(backend.reports for backend in backends))
    return set(ServerReport._fields) - {"reported_at"} - reported
