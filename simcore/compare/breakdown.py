"""Where on a request's path two worlds differ: the difference of mean E2E, in parts that add up to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from .side import Side

__all__ = ["PARTS", "Part", "breakdown", "path_of"]

PARTS: Final = {
    "router_wait_s": "arrival to dispatch, in the router's queue",
    "server_queue_s": "in the server's queue, until the first prefill step",
    "prefill_s": "first prefill step to the first token computed",
    "overhead_s": "the way to the server's scheduler and back: the rest of the server's TTFT",
    "server_ttft_s": "dispatch to first token; the server does not tell its parts",
    "decode_s": "first to last token, stalls by others' prefills and retractions included",
}
"""Every part that a path can have, in order, with its meaning."""


@dataclass(frozen=True, slots=True)
class Part:
    """Means over the finished measured requests, in seconds."""

    name: str
    real_s: float
    simulated_s: float

    @property
    def error_s(self) -> float:
        return self.simulated_s - self.real_s


def breakdown(real: Sequence[Side], simulated: Sequence[Side]) -> list[Part]:
    """The parts of mean E2E in both worlds, averaged over the runs; their errors add up to that of mean E2E.

    The time at the server before the first token is told in parts where both worlds know them of every finished
    request, and as one part otherwise.
    """
    paths = {True: [path_of(side) for side in real], False: [path_of(side) for side in simulated]}
    detailed = ["router_wait_s", "server_queue_s", "prefill_s", "overhead_s", "decode_s"]
    known = all(path[detailed].notna().all(axis=None) for world in paths.values() for path in world)
    names = detailed if known else ["router_wait_s", "server_ttft_s", "decode_s"]
    return [Part(name, _mean(paths[True], name), _mean(paths[False], name)) for name in names]


def _mean(paths: Sequence[pd.DataFrame], name: str) -> float:
    return sum(float(path[name].mean()) for path in paths) / len(paths)


def path_of(side: Side) -> pd.DataFrame:
    """The parts of each finished measured request's E2E; by request_id, columns as in ``PARTS``."""
    done = side.measured[side.measured["status"] == "finished"]
    server_ttft_s = done["first_token_at"] - done["dispatched_at"]
    return pd.DataFrame(
        {
            "router_wait_s": done["dispatched_at"] - done["arrived_at"],
            "server_queue_s": done["server_queue_s"],
            "prefill_s": done["prefill_s"],
            "overhead_s": server_ttft_s - done["server_queue_s"] - done["prefill_s"],
            "server_ttft_s": server_ttft_s,
            "decode_s": done["finished_at"] - done["first_token_at"],
        },
        index=done.index,
    )
