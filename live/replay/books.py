"""What a live run writes down beside the requests: gaps, loads, decisions, and what servers said of each request."""

import json
from typing import IO, Any

import pandas as pd

from live.routing.fleet import Member
from policies import ClusterView, Decision, Hold, Reject, RequestView, Route, ServerView
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

    def decided(self, request: RequestView, cluster: ClusterView, decision: Decision) -> None:
        """A policy's decision with the view it was taken on."""
        match decision:
            case Route(server_id, scores):
                said: dict[str, Any] = {"route": server_id, "scores": dict(scores) if scores is not None else None}
            case Reject(reason):
                said = {"reject": reason}
            case Hold():
                said = {"hold": True}
            case _:
                return  # The router refuses what is no decision, right after this.
        seen = [_seen(server) for server in cluster.servers]
        line = {"t_s": cluster.now, "request_id": request.request_id, **said, "servers": seen}
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


def _seen(server: ServerView) -> dict[str, object]:
    return {
        "server_id": server.server_id,
        "in_flight_requests": server.in_flight_requests,
        "in_flight_tokens": server.in_flight_tokens,
        "max_running_requests": server.max_running_requests,
        "requests_since_report": server.requests_since_report,
        "prefill_tokens_since_report": server.prefill_tokens_since_report,
        "reported_at": server.reported_at,
        "running_requests": server.running_requests,
        "queued_requests": server.queued_requests,
        "kv_tokens_used": server.kv_tokens_used,
        "throughput_tps": server.throughput_tps,
        "mean_ttft_s": server.mean_ttft_s,
        "mean_tpot_s": server.mean_tpot_s,
    }
