"""Writes down what happens to each request, and makes the run's table of it."""

from array import array
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .models import RequestModels
from .records import REQUEST_DTYPES, STATUSES, Status
from .server.request import ServerRequest
from .workload import Workload
from .workload.columns import FloatColumn

__all__ = ["RequestRecorder"]

_CODES: dict[Status, int] = {status: code for code, status in enumerate(STATUSES)}
_UNFINISHED = _CODES["unfinished"]
_FINISHED = _CODES["finished"]


class RequestRecorder:
    """One slot a request, in flat arrays: a million requests are some 100 MB. A request ends exactly once."""

    def __init__(self, workload: Workload, models: RequestModels) -> None:
        n = len(workload)
        nan = array("d", [float("nan")])
        self.arrived_at = nan * n
        self.dispatched_at = nan * n
        self.first_token_at = nan * n
        self.finished_at = nan * n
        self.server_queue_s = nan * n
        self.prefill_s: array[float] | FloatColumn = nan * n
        self._prefill_began_at = nan * n
        zero = array("i", [0])
        self.cached_tokens = zero * n
        self.output_tokens = zero * n
        self.attempts = zero * n
        self.retractions = zero * n
        self.server = array("i", [-1]) * n
        self.ended = 0
        self._status = array("b", [_UNFINISHED]) * n
        self._reasons: dict[int, str] = {}
        self._workload = workload
        self._models = models

    def finish(self, request: ServerRequest, now: float) -> None:
        """The last token of the answer has come back."""
        request_id = request.request_id
        if self._status[request_id] != _UNFINISHED:
            raise self._ended_twice(request_id, "finished")
        self._status[request_id] = _FINISHED
        self.first_token_at[request_id] = request.first_token_at
        self.finished_at[request_id] = now
        self._prefill_began_at[request_id] = request.started_at
        self.server_queue_s[request_id] = request.started_at - request.ready_at
        self.output_tokens[request_id] = request.output_tokens
        if request.cached_tokens:
            self.cached_tokens[request_id] = request.cached_tokens
        if request.retractions:
            self.retractions[request_id] = request.retractions
        self.ended += 1

    def end(self, request_id: int, status: Status, reason: str = "") -> None:
        """The request has come to another end, or finished with its numbers written down already."""
        if self._status[request_id] != _UNFINISHED:
            raise self._ended_twice(request_id, status)
        self._status[request_id] = _CODES[status]
        if reason:
            self._reasons[request_id] = reason
        self.ended += 1

    def _ended_twice(self, request_id: int, status: Status) -> RuntimeError:
        return RuntimeError(f"request {request_id} ended twice: {STATUSES[self._status[request_id]]}, then {status}")

    def tell_prefill_s(self, egress_s: FloatColumn) -> None:
        """How long each finished request was prefilled, once a simulation is over; ``egress_s`` has a value a
        server."""
        back_s = egress_s[np.asarray(self.server)]
        self.prefill_s = np.asarray(self.first_token_at) - back_s - np.asarray(self._prefill_began_at)

    def frame(self, server_ids: Sequence[str]) -> pd.DataFrame:
        """The table of requests (``REQUEST_DTYPES``)."""
        n = len(self._workload)
        reasons = np.full(n, "", dtype=object)
        for request_id, reason in self._reasons.items():
            reasons[request_id] = reason
        names = np.array([*server_ids, ""], dtype=object)
        columns = {
            "request_id": np.arange(n),
            "session_id": self._workload.session_id,
            "model": self._models.column(),
            "server_id": names[np.asarray(self.server)],
            "status": np.array(STATUSES, dtype=object)[np.asarray(self._status)],
            "reason": reasons,
            "arrived_at": np.asarray(self.arrived_at),
            "dispatched_at": np.asarray(self.dispatched_at),
            "first_token_at": np.asarray(self.first_token_at),
            "finished_at": np.asarray(self.finished_at),
            "prompt_tokens": self._workload.prompt_tokens,
            "cached_tokens": np.asarray(self.cached_tokens),
            "output_tokens": np.asarray(self.output_tokens),
            "attempts": np.asarray(self.attempts),
            "retractions": np.asarray(self.retractions),
            "server_queue_s": np.asarray(self.server_queue_s),
            "prefill_s": np.asarray(self.prefill_s),
        }
        return pd.DataFrame(columns).astype(REQUEST_DTYPES)
