"""What else runs on the server's machine: on a shared one, samples taken beside other work would be of both."""

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

__all__ = ["TOO_MUCH_CORES", "Neighbours"]

TOO_MUCH_CORES = 0.3
"""Others that use so much of the machine draw steps out."""

_CALM_POLL_S = 0.25
_CALM_WAIT_S = 2.0
_CALM_SHARE = 0.15  # of all time since the start that may be spent on waiting


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    all_s: float
    ours_s: float


class Neighbours:
    """Watches the processor time that is neither the server's nor ours. For a server elsewhere it sees nothing."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._ours: list[psutil.Process] = []
        if parts.hostname in ("127.0.0.1", "localhost", "::1"):
            self._ours = [psutil.Process(), *_server_tree(parts.port or 80)]
        self._mark: _Mark | None = None
        self._began = time.monotonic()
        self._waited_s = 0.0

    @property
    def can_see(self) -> bool:
        return len(self._ours) > 1

    def start(self) -> None:
        """A sample begins."""
        self._mark = self._now() if self.can_see else None

    def others_cores(self) -> float:
        """Cores that others used since ``start``, on average; 0 where that cannot be seen."""
        return 0.0 if self._mark is None else round(max(self._cores_since(self._mark), 0.0), 2)

    async def calm(self) -> None:
        """Return when others are quiet, or after a while all the same."""
        began = time.monotonic()
        left_s = _CALM_SHARE * (began - self._began) - self._waited_s
        deadline = began + min(_CALM_WAIT_S, left_s)
        while self.can_see and time.monotonic() < deadline:
            mark = self._now()
            await asyncio.sleep(_CALM_POLL_S)
            if self._cores_since(mark) <= TOO_MUCH_CORES:
                break
        self._waited_s += time.monotonic() - began

    def _now(self) -> _Mark:
        times = psutil.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        return _Mark(time.monotonic(), busy, sum(_processor_s(process) for process in self._ours))

    def _cores_since(self, mark: _Mark) -> float:
        now = self._now()
        others_s = (now.all_s - mark.all_s) - (now.ours_s - mark.ours_s)
        return others_s / max(now.at - mark.at, 1e-3)


def _processor_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _server_tree(port: int) -> list[psutil.Process]:
    """The processes of the server that listens on a port of this machine, as far as they may be looked at."""
    try:
        sockets = [one for one in psutil.net_connections("tcp") if one.status == "LISTEN" and one.laddr]
        listening = {one.pid for one in sockets if getattr(one.laddr, "port", None) == port}
        roots = [psutil.Process(pid) for pid in listening if pid is not None]
        return [process for root in roots for process in (root, *root.children(recursive=True))]
    except psutil.Error:
        return []
