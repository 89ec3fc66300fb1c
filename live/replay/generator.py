"""The load generator: sends a workload's requests at their times through the router in this process."""

import asyncio
from collections.abc import Callable

import numpy as np

from live.backends import Backend, LiveRequest, Reader
from live.clock import WallClock
from live.routing.air import Air
from live.routing.flight import Flight
from live.upstream.head import request_bytes
from simcore.clients import Clients
from simcore.models import RequestModels
from simcore.recorder import RequestRecorder
from simcore.records import Status
from simcore.request_faces import RequestFaces
from simcore.workload import Workload

from .asking import Asking
from .at_server import time_at_server
from .books import Books
from .prompts import PromptTokens

__all__ = ["Generator"]

_HEADERS = (("Content-Type", "application/json"), ("Accept", "text/event-stream"))


class Generator:
    """One run's clients. ``lateness_s`` has, for each request, how much later than scheduled it reached the router, in
    seconds of the wall clock."""

    def __init__(
        self,
        air: Air,
        clock: WallClock,
        workload: Workload,
        faces: RequestFaces,
        prompts: PromptTokens,
        books: Books,
        models: RequestModels,
    ) -> None:
        self.air = air
        self.clock = clock
        self.books = books
        self.recorder = RequestRecorder(workload, models)
        self.lateness_s: list[float] = []
        self.done = asyncio.Event()
        self._workload = workload
        self._faces = faces
        self._prompts = prompts
        self._models: list[str] = models.column().tolist()
        self._servers = {server_id: index for index, server_id in enumerate(air.fleet.members)}
        self._clients = Clients(clock, workload, self._send)
        self._flights: dict[int, Flight] = {}

    @property
    def total(self) -> int:
        """Requests of the workload."""
        return len(self._workload)

    async def run(self) -> bool:
        """From the first request to the end of the last; returns whether it was interrupted, which leaves those under
        way unfinished."""
        self._clients.start()
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            self._withdraw()
            return True
        return False

    def stop(self) -> None:
        """End the run with what there is."""
        self._withdraw()
        self.done.set()

    def _withdraw(self) -> None:
        for flight in list(self._flights.values()):
            flight.cancel()

    # -- sending -------------------------------------------------------------------------------------------------

    def _send(self, request_id: int, scheduled: float) -> None:
        if self.done.is_set():
            return
        now = self.clock.now
        self.lateness_s.append((now - scheduled) / self.clock.speed)
        self.recorder.arrived_at[request_id] = now
        asking = Asking(self, request_id)
        flight = Flight(self.air, request_id, self._request_of(request_id), asking)
        asking.flight = self._flights[request_id] = flight
        flight.depart(self._faces.view(request_id, now))

    def _request_of(self, request_id: int) -> Callable[[Backend, str], bytes]:
        workload = self._workload

        def make(backend: Backend, rid: str) -> bytes:
            request = LiveRequest(
                prompt=self._prompts.ids(request_id),
                max_new_tokens=int(workload.max_new_tokens[request_id]),
                output_tokens=int(workload.output_tokens[request_id]),
                ignore_eos=workload.ignore_eos,
                model=self._models[request_id],
            )
            path = backend.origin.base_path + backend.generate
            body = backend.live_body(request, rid)
            return request_bytes("POST", path, backend.origin.host, (*_HEADERS, *backend.headers), body)

        return make

    # -- ends ----------------------------------------------------------------------------------------------------

    def finished(self, request_id: int, server_id: str, at: float, reader: Reader, flight: Flight) -> None:
        """The answer is complete."""
        recorder = self.recorder
        recorder.finished_at[request_id] = at
        recorder.cached_tokens[request_id] = int(reader.meta.get("cached_tokens") or 0)
        recorder.retractions[request_id] = int(reader.meta.get("num_retractions") or 0)
        recorder.server_queue_s[request_id], recorder.prefill_s[request_id] = time_at_server(reader.meta)
        self._note(request_id, server_id, flight)
        self.books.meta(request_id, reader.meta)
        self._prompts.answered(request_id, reader.output_ids)
        recorder.end(request_id, "finished")
        if self._faces.learns:
            self._faces.answered(request_id, int(recorder.output_tokens[request_id]))
        # The router is told right after this; only then may the client send what waited for it.
        self.air.loop.call_soon(self._clients.answered, request_id, self.clock.now)
        self._count_end()

    def gave_up(self, request_id: int, server_id: str, status: Status, reason: str, flight: Flight) -> None:
        """The request has ended without an answer."""
        self._note(request_id, server_id, flight)
        self.recorder.end(request_id, status, reason)
        self.air.loop.call_soon(self._drop_turns, request_id)

    def _note(self, request_id: int, server_id: str, flight: Flight) -> None:
        recorder = self.recorder
        recorder.attempts[request_id] = flight.attempts
        if flight.attempts:
            recorder.dispatched_at[request_id] = flight.dispatched_at
            recorder.server[request_id] = self._servers[server_id or flight.server_id]
        self._flights.pop(request_id, None)

    def _drop_turns(self, request_id: int) -> None:
        for turn in self._clients.gave_up(request_id, self.clock.now):
            self.recorder.end(turn, "cancelled", "the session's turn before it was not answered")
        self._count_end()

    def _count_end(self) -> None:
        if self.recorder.ended == self.total:
            self.done.set()

    def lateness(self) -> dict[str, float]:
        """The spread of ``lateness_s``."""
        late = np.asarray(self.lateness_s or [0.0])
        p50, p99, most = (float(value) for value in np.quantile(late, [0.5, 0.99, 1.0]))
        return {"p50_s": p50, "p99_s": p99, "max_s": most}
