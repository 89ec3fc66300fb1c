"""What servers that share processors cost each other.

A server's steps take longer while its neighbours are in steps too, as their processes want the same cores: half of it
for a step of theirs with a single request, and half with the number of requests. It is measured as two calibrations of
one server in turns, beside neighbours that never rest and beside idle ones. A live run is simulated with as much of the
difference as its neighbours are busy, which the simulation itself foretells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from simcore.profile import ServiceProfile
from simcore.profile_comparison import compare_profiles

__all__ = ["Crowding"]


@dataclass(frozen=True, slots=True)
class Crowding:
    """How long decode and prefill steps take beside idle neighbours, over those beside neighbours that never rest. In
    between it is a line."""

    decode: float
    prefill: float

    @classmethod
    def between(cls, alone: str, beside: str) -> "Crowding":
        """Of profiles, by their files; on a machine as it was beside the second."""
        both = [ServiceProfile.load(file, Path()) for file in (beside, alone)]
        change = {term.term: term.mean for term in compare_profiles(*both).terms}
        return cls(round(1 + change["decode step"], 4), round(1 + change["prefill step"], 4))

    def beside(self, profile: ServiceProfile, requests: pd.DataFrame, servers: int) -> ServiceProfile:
        """The profile, which was measured beside neighbours that never rest and is slowed down from time to time,
        beside those of a run with these ``requests``."""
        most_running = servers * profile.settings.max_running_requests
        shares = _busy_shares(requests, servers, most_running, [one.at_s for one in profile.slowdowns])
        factors = zip(profile.slowdowns, _between(self.decode, shares), _between(self.prefill, shares), strict=True)
        slowdowns = tuple(
            one.model_copy(update={"decode": one.decode * decode, "prefill": one.prefill * prefill})
            for one, decode, prefill in factors
        )
        return profile.model_copy(update={"slowdowns": slowdowns})


def _between(alone: float, shares: np.ndarray) -> list[float]:
    return (alone + (1 - alone) * shares).tolist()


def _busy_shares(requests: pd.DataFrame, servers: int, most_running: int, at_s: Sequence[float]) -> np.ndarray:
    """How busy all servers are, from each moment to the next and after the last; a server's neighbours are as busy as
    all are. The mean of two shares: of the servers that are in a step, and of the requests they may run that they do.
    Regressions of step times in live runs tell about as much of either."""
    done = requests[requests["status"] == "finished"]
    running = done["first_token_at"] - done["prefill_s"], done["finished_at"]
    spans = list(pairwise([*at_s, max(float(done["finished_at"].max()), at_s[-1] + 1)]))
    in_step = _mean_at_once(*_busy_times(done["server_id"], *running), spans) / servers
    return (in_step + _mean_at_once(*running, spans) / most_running) / 2


def _mean_at_once(begun: pd.Series, ended: pd.Series, spans: Sequence[tuple[float, float]]) -> np.ndarray:
    """How many are under way in each span, on average."""
    together_s = [(ended.clip(upper=stop) - begun.clip(lower=start)).clip(lower=0).sum() for start, stop in spans]
    return np.array(together_s) / np.diff(spans)[:, 0]


def _busy_times(server: pd.Series, begun: pd.Series, ended: pd.Series) -> tuple[pd.Series, pd.Series]:
    """When servers began and ended to run anything."""
    times = pd.DataFrame({"server": server, "begun": begun, "ended": ended}).sort_values(["server", "begun"])
    ended_so_far = times.groupby("server")["ended"].cummax()
    rested = times["begun"] > ended_so_far.groupby(times["server"]).shift()
    first = rested | ~times["server"].duplicated()
    whole = times.groupby(first.cumsum()).agg({"begun": "min", "ended": "max"})
    return whole["begun"], whole["ended"]
