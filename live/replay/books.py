"""What a live run writes down beside the requests: gaps, loads, decisions, and what servers said of each request."""

import json
from typing import IO, Any

import pandas as pd

from live.routing.fleet import Member
from live.routing.watched import Decided
from policies import Hold, Reject, Route
from policies.ledger import ServerReport
from simcore.records import ITL_DTYPES, TIMELINE_DTYPES

__all__ = ["Books"]


class Books:
    """``reports``, ``decisions`` and ``meta`` are JSON lines, written as they come; gaps and samples stay in memory."""

    def __init__(self, reports: IO[str], decisions: IO[str], meta: IO[str]) -> None:
        self._reports = reports
        self._decisions = decisions
        self._meta = meta
        self._gaps: dict[float, int] = {}
        self._samples: list[tuple[float, str, int, int, int, int]] = []
        self.peaks: dict[str, tuple[int, int]] = {}

    def gap(self, gap_s: float, tokens: int) -> None:
        """``tokens`` came ``gap_s`` after the one before: each took its share."""
        share_s = float(f"{gap_s / tokens:.3g}")
        self._gaps[share_s] = self._gaps.get(share_s, 0) + tokens

    def report(self, member: Member, report: ServerReport, in_flight: int) -> None:
        """A server's load report."""
        line = {"server_id": member.server_id, "in_flight": in_flight, **report._asdict()}
        self._reports.write(json.dumps(line) + "\n")
        running, queued, used = (
            report.running_requests or 0,
            report.queued_requests or 0,
            report.kv_tokens_used or 0,
        )
        self._samples.append((report.reported_at, member.server_id, running, queued, used, in_flight))
        most_running, most_used = self.peaks.get(member.server_id, (0, 0))
        self.peaks[member.server_id] = (max(most_running, running), max(most_used, used))

    def decided(self, decided: Decided) -> None:
        """A policy's decision with the view it was taken on."""
        match decided.decision:
            case Route(server_id, scores):
                said: dict[str, Any] = {"route": server_id, "scores": dict(scores) if scores is not None else None}
            case Reject(reason):
                said = {"reject": reason}
            case Hold():
                said = {"hold": True}
        line = {"t_s": decided.now, "request_id": decided.request_id, **said, "servers": decided.servers}
        self._decisions.write(json.dumps(line) + "\n")

    def meta(self, request_id: int, said: dict[str, Any]) -> None:
        """What the server said of a request at its end."""
        self._meta.write(json.dumps({"request_id": request_id, **said}) + "\n")

    def itl_frame(self) -> pd.DataFrame:
        """The gaps (``ITL_DTYPES``)."""
        return pd.DataFrame(sorted(self._gaps.items()), columns=list(ITL_DTYPES)).astype(ITL_DTYPES)

    def timeline_frame(self) -> pd.DataFrame:
        """The load reports as samples (``TIMELINE_DTYPES``)."""
        return pd.DataFrame(sorted(self._samples), columns=list(TIMELINE_DTYPES)).astype(TIMELINE_DTYPES)
