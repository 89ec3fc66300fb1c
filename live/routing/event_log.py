"""The log of everything a router was told and what it answered, and its proof: a fresh router, told the same, answers
the same.

JSON lines. The first says how the router was set up; each later one is an event ``{"t", "e", "x", "a"}``: time, name,
arguments, actions.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from policies import Policy, RequestView, make_order
from policies.controllers import Cap, ControlledRouter, Controller, make_controller
from policies.ledger import ServerConfig, ServerReport
from policies.per_model import per_model
from policies.router import Abort, Action, Dispatch, Fail, Refuse, Router
from simcore.errors import UserError

__all__ = ["EVENT_LOG_VERSION", "EventLog", "Replay", "RouterSetup", "replay"]

EVENT_LOG_VERSION: Final = 1

_ACTIONS: Final[dict[type, str]] = {
    Dispatch: "dispatch",
    Refuse: "refuse",
    Fail: "fail",
    Abort: "abort",
    Cap: "cap",
}


@dataclass(frozen=True, slots=True)
class RouterSetup:
    """All that a router is made of; equal setups and events give equal decisions. ``controller`` is empty where nothing
    but commands changes caps."""

    servers: tuple[ServerConfig, ...]
    policy: str
    params: Mapping[str, object]
    seed: int
    order: str | None = None
    queue_limit: int | None = None
    max_attempts: int = 1
    controller: str = ""
    controller_params: Mapping[str, object] = field(default_factory=dict)

    def make_policy(self) -> Policy:
        """The policy with its own random stream, one a model. Raises PolicyError."""
        return per_model([server.model for server in self.servers], self.policy, self.params, self.seed)

    def make_controller(self) -> Controller | None:
        """The controller, where there is one. Raises PolicyError."""
        return make_controller(self.controller, self.controller_params) if self.controller else None

    def router(self, policy: Policy) -> Router:
        """The router around ``policy``, and around the controller. Raises PolicyError."""
        order, controller = make_order(self.order) if self.order else None, self.make_controller()
        limit, attempts = self.queue_limit, self.max_attempts
        if controller is None:
            return Router(self.servers, policy, order=order, queue_limit=limit, max_attempts=attempts)
        return ControlledRouter(self.servers, policy, controller, order=order, queue_limit=limit, max_attempts=attempts)


class EventLog:
    """Writes events as they happen."""

    def __init__(self, stream: IO[str], setup: RouterSetup) -> None:
        self._stream = stream
        self._line({"version": EVENT_LOG_VERSION, "setup": asdict(setup)})

    def event(self, name: str, now: float, arguments: Sequence[object], actions: Sequence[Action | Cap]) -> None:
        """One event, in the order in which the router was told."""
        said = [(_ACTIONS[type(action)], *action) for action in actions]
        self._line({"t": now, "e": name, "x": arguments, "a": said})

    def _line(self, document: object) -> None:
        self._stream.write(json.dumps(document, separators=(",", ":")) + "\n")


@dataclass(frozen=True, slots=True)
class Replay:
    """``differences`` tells of the first few events that were answered differently, by line."""

    events: int
    decisions: int
    differences: tuple[str, ...]


def replay(path: Path) -> Replay:
    """Tell a fresh router what the log says, and compare its answers. Raises UserError for what is not such a log."""
    with path.open(encoding="utf-8") as stream:
        try:
            return _replay((json.loads(line) for line in stream), str(path))
        except (ValueError, KeyError, StopIteration) as error:
            raise UserError(f"{path} is not an event log of this simroute: {error}") from error


def _replay(lines: Iterable[dict[str, Any]], where: str) -> Replay:
    iterator = iter(lines)
    head = next(iterator)
    if head.get("version") != EVENT_LOG_VERSION:
        raise UserError(f"{where}: version is {head.get('version')!r}, this simroute reads {EVENT_LOG_VERSION}")
    setup = _setup(head["setup"])
    router = setup.router(setup.make_policy())
    told = _told(router)
    events = decisions = 0
    differences: list[str] = []
    for line, event in enumerate(iterator, 2):
        events += 1
        actions = told[event["e"]](event["t"], *event["x"]) or []
        answered = [[_ACTIONS[type(action)], *action] for action in actions]
        decisions += sum(action[0] in ("dispatch", "refuse") for action in answered)
        if answered != event["a"] and len(differences) < 10:
            differences.append(f"line {line}: logged {event['a']}, replayed {answered}")
    return Replay(events, decisions, tuple(differences))


def _setup(document: dict[str, Any]) -> RouterSetup:
    servers = tuple(ServerConfig(**server) for server in document.pop("servers"))
    return RouterSetup(servers=servers, **document)


def _told(router: Router) -> dict[str, Callable[..., Any]]:
    """By the event's name, what takes its time and arguments."""

    def arrival(now: float, request: list[Any]) -> list[Action]:
        view = RequestView(*request)
        return router.on_arrival(now, view._replace(prefix_hashes=tuple(view.prefix_hashes)))

    def failure(now: float, request_id: int, reason: str, retry: bool) -> list[Action]:
        return router.on_failure(now, request_id, reason, retry=retry)

    def switch(now: float, policy: str, params: dict[str, object], seed: int, order: str | None) -> list[Action]:
        made = per_model([state.model for state in router.servers.values()], policy, params, seed)
        return router.switch_policy(now, made, make_order(order) if order else None)

    def tick(now: float) -> list[Cap]:
        assert isinstance(router, ControlledRouter)
        return router.on_tick(now)

    return {
        "arrival": arrival,
        "first_token": router.on_first_token,
        "finish": router.on_finish,
        "failure": failure,
        "limited": router.on_limited,
        "room": router.on_room,
        "cancel": router.on_cancel,
        "report": lambda now, server_id, report: router.on_report(now, server_id, ServerReport(*report)),
        "cap": router.set_cap,
        "health": router.set_health,
        "add": lambda now, config: router.add_server(now, ServerConfig(*config)),
        "remove": router.remove_server,
        "policy": switch,
        "tick": tick,
    }
