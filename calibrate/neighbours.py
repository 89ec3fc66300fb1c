"""What else runs on the server's machine: on a shared one, samples taken beside other work would be of both."""

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from .pace import PaceMeter, Timed, typical_work_s

__all__ = ["TOO_MUCH_CORES", "TOO_MUCH_STOLEN", "Meanwhile", "Neighbours", "ProcessorTime"]

TOO_MUCH_CORES = 0.3
"""Others that use so much of the machine draw steps out."""
TOO_MUCH_STOLEN = 0.1
"""Of a virtual machine's processor time, had by its host for others: then a sample tells of the host."""

_CALM_POLL_S = 0.25
_CALM_WAIT_S = 2.0
_CALM_SHARE = 0.15  # of all time since the start that may be spent on waiting
_PACE_OVER_S = 1.0
"""At least: over less, the pieces of work scatter more than the pace changes."""


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """All cores' seconds since the machine started: in all, those in use, and those that the host of a virtual machine
    had for others ("steal")."""

    cores_s: float
    busy_s: float
    stolen_s: float

    @classmethod
    def now(cls) -> "ProcessorTime":
        """By the operating system's count."""
        times = psutil.cpu_times()
        # Guests' time is in that of their owners already; only Linux knows these.
        cores_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        stolen_s = getattr(times, "steal", 0.0)
        return cls(cores_s, cores_s - times.idle - getattr(times, "iowait", 0.0) - stolen_s, stolen_s)


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    unix_s: float
    ours_s: float
    server_s: tuple[float, ...]
    all: ProcessorTime


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What was on the machine besides the server and us: cores that other processes used, the share of its processor
    time that the host of a virtual machine had for others ("steal"), and how long a small piece of work took on it. And
    how much of a core the busiest of the server's processes used."""

    others_cores: float = 0.0
    stolen: float = 0.0
    work_s: float | None = None
    """None where it was not timed."""
    server_cores: float | None = None
    """None where the server cannot be seen."""

    @property
    def calm(self) -> bool:
        return self.others_cores <= TOO_MUCH_CORES and self.stolen <= TOO_MUCH_STOLEN


class Neighbours(ExitStack):
    """Watches the processor time that is neither the server's nor ours, and the machine's pace, until it is closed.
    Of a server elsewhere it sees nothing."""

    def __init__(self, url: str) -> None:
        super().__init__()
        parts = urlsplit(url)
        self._ours: list[psutil.Process] = [psutil.Process()]
        self._server: list[psutil.Process] = []
        if parts.hostname in ("127.0.0.1", "localhost", "::1"):
            self._server = _server_tree(parts.port or 80)
        self._timed: list[Timed] = []
        self._mark: _Mark | None = None
        self._began = time.monotonic()
        self._waited_s = 0.0
        self._were_calm = False
        if self.can_see:
            meter = self.enter_context(PaceMeter(self._timed.append))
            self._ours.append(psutil.Process(meter.pid))

    @property
    def can_see(self) -> bool:
        return bool(self._server)

    def start(self) -> None:
        """A sample begins."""
        self._mark = self._now() if self.can_see else None

    def meanwhile(self) -> Meanwhile:
        """Since ``start``, the pace over 1 s at least; 0 and None where that cannot be seen."""
        found = Meanwhile() if self._mark is None else self._since(self._mark)
        self._were_calm = found.calm
        return found

    async def calm(self) -> None:
        """Return when others are quiet, which they are if they were so in the last sample, or after a while all the
        same."""
        if self._were_calm:
            return
        began = time.monotonic()
        left_s = _CALM_SHARE * (began - self._began) - self._waited_s
        deadline = began + min(_CALM_WAIT_S, left_s)
        while self.can_see and time.monotonic() < deadline:
            mark = self._now()
            await asyncio.sleep(_CALM_POLL_S)
            if self._since(mark).calm:
                break
        self._waited_s += time.monotonic() - began

    def _now(self) -> _Mark:
        ours_s = sum(map(_processor_s, self._ours))
        return _Mark(time.monotonic(), time.time(), ours_s, tuple(map(_processor_s, self._server)), ProcessorTime.now())

    def _since(self, mark: _Mark) -> Meanwhile:
        now = self._now()
        elapsed_s = max(now.at - mark.at, 1e-3)
        server_s = [after - before for before, after in zip(mark.server_s, now.server_s, strict=True)]
        others_s = (now.all.busy_s - mark.all.busy_s) - (now.ours_s - mark.ours_s) - sum(server_s)
        stolen = (now.all.stolen_s - mark.all.stolen_s) / max(now.all.cores_s - mark.all.cores_s, 1e-3)
        pace_since = min(mark.unix_s, now.unix_s - _PACE_OVER_S)
        return Meanwhile(
            others_cores=round(max(others_s / elapsed_s, 0.0), 2),
            stolen=round(stolen, 4),
            work_s=typical_work_s(timed for timed in self._timed if timed.at >= pace_since),
            server_cores=round(max(server_s) / elapsed_s, 3),
        )


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
