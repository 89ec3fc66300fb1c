"""What is read off the servers while they run: reports for the policy, samples for the timeline."""

import math
from collections import deque
from collections.abc import Callable

import pandas as pd

from policies.ledger import ServerReport, ServerState

from .clock import Clock
from .fleet import Member
from .records import TIMELINE_DTYPES
from .server.interface import Load

__all__ = ["Reporter", "Sampler"]


class Reporter:
    """Polls every server each ``interval_s`` and delivers the report ``delay_s`` later, as stale as a live scraper's.

    What it says of running and queued requests and their KV tokens is ``age_s`` old when it is asked for: servers write
    that down now and then. The router cannot know, and takes it to be of that moment.
    Throughput is in output tokens a second since the report before; latencies are means over the requests that got
    their first token, or ended, since then, and stay as they were where there were none.
    """

    def __init__(
        self,
        clock: Clock,
        members: list[Member],
        interval_s: float,
        delay_s: float,
        age_s: float,
        deliver: Callable[[str, ServerReport, float], None],
    ) -> None:
        self._clock = clock
        self._members = members
        self._interval_s = interval_s
        self._delay_s = delay_s
        self._age_s = age_s
        self._deliver = deliver
        self._previous: list[tuple[int, float, int, float, int]] = [(0, 0.0, 0, 0.0, 0)] * len(members)
        self._latest: list[ServerReport | None] = [None] * len(members)
        # What was written down of the servers and not read yet: before they began, nothing.
        before = math.ceil(age_s / interval_s)
        self._written: deque[list[Load]] = deque([self._loads(0.0)] * before)
        if age_s > 0:
            clock.at(before * interval_s - age_s, self._on_write)
        clock.at(0.0, self._on_poll)

    def _loads(self, now: float) -> list[Load]:
        return [member.server.load(now) for member in self._members]

    def _on_write(self, now: float, _: None) -> None:
        self._written.append(self._loads(now))
        self._clock.at(now + self._interval_s, self._on_write)

    def _on_poll(self, now: float, _: None) -> None:
        loads = self._loads(now)
        written = self._written.popleft() if self._age_s > 0 else loads
        reports = [
            (member.server.server_id, self._report(member, load, seen, now))
            for member, load, seen in zip(self._members, loads, written, strict=True)
        ]
        if self._delay_s > 0:
            self._clock.at(now + self._delay_s, self._hand_over, reports)
        else:
            self._hand_over(now, reports)
        self._clock.at(now + self._interval_s, self._on_poll)

    def _hand_over(self, now: float, reports: list[tuple[str, ServerReport]]) -> None:
        for server_id, report in reports:
            self._deliver(server_id, report, now)

    def _report(self, member: Member, load: Load, written: Load, now: float) -> ServerReport:
        telemetry, index = member.server.telemetry, member.index
        before = self._previous[index]
        totals = (
            load.generated_tokens,
            telemetry.ttft_sum_s,
            telemetry.ttft_count,
            load.gap_sum_s,
            load.gaps,
        )
        self._previous[index] = totals
        latest = self._latest[index]
        report = self._latest[index] = ServerReport(
            reported_at=now,
            running_requests=written.running,
            queued_requests=written.queued,
            kv_tokens_used=written.kv_tokens_used,
            kv_tokens_capacity=member.kv_tokens_capacity,
            throughput_tps=0.0 if latest is None else (totals[0] - before[0]) / (now - latest.reported_at),
            mean_ttft_s=_mean(totals[1] - before[1], totals[2] - before[2], latest and latest.mean_ttft_s),
            mean_tpot_s=_mean(totals[3] - before[3], totals[4] - before[4], latest and latest.mean_tpot_s),
        )
        return report


def _mean(total: float, count: int, otherwise: float | None) -> float | None:
    return total / count if count else otherwise


class Sampler:
    """Samples every server's state, at most ``max_samples`` times: when there are more, every second one is dropped and
    the interval doubled. So a run of unknown length costs a fixed number of samples. ``on_sample`` is called at
    each."""

    def __init__(
        self,
        clock: Clock,
        members: list[Member],
        states: dict[str, ServerState],
        interval_s: float,
        on_sample: Callable[[float], None],
    ) -> None:
        self._clock = clock
        self._on_sampled = on_sample
        self._members = members
        self._states = states
        self._interval_s = interval_s
        self._max_samples = min(max(20_000 // len(members), 20), 400)
        self._samples: list[tuple[float, list[tuple[int, int, int, int]]]] = []
        clock.at(0.0, self._on_sample)

    def _on_sample(self, now: float, _: None) -> None:
        rows = []
        for member in self._members:
            load = member.server.load(now)
            in_flight = self._states[member.server.server_id].in_flight_requests
            rows.append((load.running, load.queued, load.kv_tokens_used, in_flight))
        self._samples.append((now, rows))
        if len(self._samples) >= self._max_samples:
            self._samples = self._samples[::2]
            self._interval_s *= 2
        self._clock.at(self._samples[-1][0] + self._interval_s, self._on_sample)
        self._on_sampled(now)

    def frame(self) -> pd.DataFrame:
        """The samples (``TIMELINE_DTYPES``), by time and then server."""
        ids = [member.server.server_id for member in self._members]
        rows = [
            (t_s, server_id, *state)
            for t_s, states in self._samples
            for server_id, state in zip(ids, states, strict=True)
        ]
        return pd.DataFrame(rows, columns=list(TIMELINE_DTYPES)).astype(TIMELINE_DTYPES)
