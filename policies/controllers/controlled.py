"""A router whose controller sees what it sees: the one way by which a controller learns anything, in both worlds."""

from collections.abc import Sequence

from policies.base import Policy, QueueOrder
from policies.ledger import InFlight, ServerConfig, ServerReport, ServerState
from policies.router import Action, Dispatch, Router

from .base import Cap, Controller

__all__ = ["ControlledRouter"]


class ControlledRouter(Router):
    """``on_tick`` asks the controller. Its caps are the driver's to carry out, by ``set_cap``, so that whatever else
    has to be told (a real server, the books) is told in one place. Raises PolicyError where the controller does not
    fit the servers."""

    def __init__(
        self,
        servers: Sequence[ServerConfig],
        policy: Policy,
        controller: Controller,
        *,
        order: QueueOrder | None = None,
        queue_limit: int | None = None,
        max_attempts: int = 1,
    ) -> None:
        super().__init__(servers, policy, order=order, queue_limit=queue_limit, max_attempts=max_attempts)
        controller.check(list(self.servers))
        self.needs = controller.needs
        """What the controller decides on, of servers' reports."""
        self._controller = controller
        self._dispatched_at: dict[int, float] = {}

    def on_tick(self, now: float) -> list[Cap]:
        """The caps that the controller changes."""
        return list(self._controller.decide(now, list(self.servers.values())))

    def on_first_token(self, now: float, request_id: int) -> None:
        """See ``Router``."""
        super().on_first_token(now, request_id)
        entry = self._requests[request_id]
        assert entry.server is not None
        self._controller.on_first_token(entry.request, entry.server, self._dispatched_at[request_id], now)

    def on_report(self, now: float, server_id: str, report: ServerReport) -> list[Action]:
        """See ``Router``."""
        actions = super().on_report(now, server_id, report)
        self._controller.on_report(self.servers[server_id], now)
        return actions

    def _try(self, now: float, entry: InFlight, servers: Sequence[ServerState], queued: int) -> Action | None:
        action = super()._try(now, entry, servers, queued)
        if isinstance(action, Dispatch):
            self._dispatched_at[action.request_id] = now
        return action

    def _release(self, now: float, entry: InFlight) -> ServerState:
        state = super()._release(now, entry)
        dispatched_at = self._dispatched_at.pop(entry.request.request_id)
        self._controller.on_finish(entry.request, state, dispatched_at, now)
        return state
