"""Caps at given times."""

import math
from collections.abc import Sequence

from policies.errors import PolicyError
from policies.views import ServerView

from .base import Cap, Controller

__all__ = ["FixedSchedule"]

_ALL = "all"
_FORM = "fixed_schedule: caps are entries [at_s, server, cap], such as [60, s0, 4] or [120, all, null]"


class FixedSchedule(Controller):
    """At each entry's time its server gets its cap, whatever the load: ``[at_s, server, cap]``, with ``all`` for all
    servers and null for no cap. Entries of one time come in their order. A scenario's ``control`` changes caps by this
    controller.

    Helps: load that is known beforehand, experiments, and as the yardstick for the other controllers.
    Hurts: load that is not as it was expected to be.
    """

    name = "fixed_schedule"
    summary = "given caps at given times"
    source = "simroute"
    parameters = {"caps": "entries [at_s, server or all, cap or null]"}  # noqa: RUF012

    def __init__(self, caps: Sequence = ()) -> None:  # type: ignore[type-arg]
        self._entries = sorted(map(_entry, caps), key=lambda entry: entry[0])
        self._done = 0
        self.moments = tuple(dict.fromkeys(at_s for at_s, _, _ in self._entries))

    def check(self, server_ids: Sequence[str]) -> None:
        """See ``Controller``."""
        for _, server_id, _ in self._entries:
            if server_id not in (_ALL, *server_ids):
                raise PolicyError(f"fixed_schedule: no server {server_id!r}; there are: {', '.join(server_ids)}")

    def decide(self, now: float, servers: Sequence[ServerView]) -> list[Cap]:
        """See ``Controller``."""
        caps = []
        while self._done < len(self._entries) and self._entries[self._done][0] <= now:
            _, wanted, cap = self._entries[self._done]
            self._done += 1
            caps += [Cap(server.server_id, cap) for server in servers if wanted in (_ALL, server.server_id)]
        return caps


def _entry(given: object) -> tuple[float, str, int | None]:
    if not isinstance(given, list | tuple) or len(given) != 3:
        raise PolicyError(f"{_FORM}; not {given!r}")
    at_s, server_id, cap = given
    timely = isinstance(at_s, int | float) and not isinstance(at_s, bool) and math.isfinite(at_s) and at_s >= 0
    capped = cap is None or (isinstance(cap, int) and not isinstance(cap, bool) and cap >= 1)
    if not (timely and isinstance(server_id, str) and capped):
        raise PolicyError(f"{_FORM}; not {given!r}")
    return float(at_s), server_id, cap
