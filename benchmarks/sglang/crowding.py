"""What servers that share processors cost each other.

A server's step takes longer the more requests its neighbours run, as their processes want the same cores. It is
measured as two calibrations of one server in turns, beside neighbours that are full and beside idle ones. A live run is
simulated with as much of the difference as its neighbours run requests, which the simulation itself foretells.
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
    """``decode`` and ``prefill``: how long steps take beside idle neighbours, over those beside neighbours that run
    ``full`` requests in all. In between it is a line."""

    decode: float
    prefill: float
    full: int

    @classmethod
    def between(cls, alone: str, beside: str, full: int) -> "Crowding":
        """Of profiles, by their files; on a machine as it was beside the second."""
        both = [ServiceProfile.load(file, Path()) for file in (beside, alone)]
        change = {term.term: term.mean for term in compare_profiles(*both).terms}
        return cls(round(1 + change["decode step"], 4), round(1 + change["prefill step"], 4), full)

    def beside(self, profile: ServiceProfile, requests: pd.DataFrame, servers: int) -> ServiceProfile:
        """The profile, which was measured beside full neighbours and is slowed down from time to time, beside those of
        a run with these ``requests``."""
        at_s = [one.at_s for one in profile.slowdowns]
        shares = _running_beside(requests, servers, at_s) / self.full
        slowdowns = tuple(
            one.model_copy(update={"decode": one.decode * decode, "prefill": one.prefill * prefill})
            for one, decode, prefill in zip(
                profile.slowdowns, _between(self.decode, shares), _between(self.prefill, shares), strict=True
            )
        )
        return profile.model_copy(update={"slowdowns": slowdowns})


def _between(alone: float, shares: np.ndarray) -> list[float]:
    return (alone + (1 - alone) * shares).tolist()


def _running_beside(requests: pd.DataFrame, servers: int, at_s: Sequence[float]) -> np.ndarray:
    """How many requests the neighbours of a server run on average, from each moment to the next and after the last."""
    done = requests[requests["status"] == "finished"]
    begun, ended = (done["first_token_at"] - done["prefill_s"]).to_numpy(), done["finished_at"].to_numpy()
    until = max(float(ended.max()), at_s[-1] + 1)
    seconds = [
        np.clip(np.minimum(ended, stop) - np.maximum(begun, start), 0, None).sum() / (stop - start)
        for start, stop in pairwise([*at_s, until])
    ]
    return np.array(seconds) * (servers - 1) / servers
