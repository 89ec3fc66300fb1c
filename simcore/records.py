"""What a run leaves behind, the same whether its world was simulated or real."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import pandas as pd

__all__ = [
    "CAP_DTYPES",
    "ITL_DTYPES",
    "REQUEST_DTYPES",
    "SERVER_DTYPES",
    "STATUSES",
    "TIMELINE_DTYPES",
    "RunResult",
    "Status",
]

Status = Literal["finished", "rejected", "failed", "cancelled", "unfinished"]
STATUSES: tuple[Status, ...] = get_args(Status)

REQUEST_DTYPES = {
    "request_id": "int64",
    "session_id": "int64",
    "model": "str",
    "server_id": "str",
    "status": "str",
    "reason": "str",
    "arrived_at": "float64",
    "dispatched_at": "float64",
    "first_token_at": "float64",
    "finished_at": "float64",
    "prompt_tokens": "int64",
    "cached_tokens": "int64",
    "output_tokens": "int64",
    "attempts": "int64",
    "retractions": "int64",
    "server_queue_s": "float64",
    "prefill_s": "float64",
}
"""Columns of ``RunResult.requests``, the RequestRecord of the design: one row a request, in order of request_id.

Times are seconds since the start of the run, NaN for what did not happen: ``arrived_at`` the request reaches the
router, ``dispatched_at`` it leaves the router's queue for a server, ``first_token_at`` and ``finished_at`` its first
and last token reach the router. ``session_id`` is -1 outside sessions, ``server_id`` empty when never dispatched,
``reason`` says why the request was rejected, failed or cancelled and is empty otherwise. ``output_tokens`` are those
generated, ``cached_tokens`` the part of the prompt found in the server's prefix cache, ``attempts`` the dispatches,
``retractions`` how often its KV was taken back. ``server_queue_s`` is how long a finished request waited at the server
until its first prefill step began, ``prefill_s`` from then to the end of the step that computed its first token, both
by the server's own account; NaN where it gives none.
"""

SERVER_DTYPES = {
    "server_id": "str",
    "profile": "str",
    "busy_s": "float64",
    "prefill_s": "float64",
    "decode_s": "float64",
    "mixed_s": "float64",
    "steps": "int64",
    "prefill_tokens": "int64",
    "cached_tokens": "int64",
    "decode_tokens": "int64",
    "retractions": "int64",
    "peak_kv_tokens": "int64",
    "kv_tokens_capacity": "int64",
    "max_running_requests": "int64",
    "peak_running": "int64",
    "model": "str",
    "price_per_hour": "float64",
    "input_price_per_million": "float64",
    "output_price_per_million": "float64",
}
"""Columns of ``RunResult.servers``: one row a server; busy, prefill, decode and mixed are seconds spent in such
steps, NaN where a server does not tell. Prices are NaN where none was given: of the server by the hour, and of a remote
API by the million tokens of prompts and answers."""

TIMELINE_DTYPES = {
    "t_s": "float64",
    "server_id": "str",
    "running": "int64",
    "queued": "int64",
    "kv_tokens_used": "int64",
    "in_flight": "int64",
}
"""Columns of ``RunResult.timeline``: samples of each server's state; ``in_flight`` is the router's own count."""

CAP_DTYPES = {"t_s": "float64", "server_id": "str", "max_running_requests": "float64"}
"""Columns of ``RunResult.caps``: the router's cap on a server from that time on, NaN for none; first that of each
server at the start, then every change that ``control`` or the controller made."""

ITL_DTYPES = {"gap_s": "float64", "count": "int64"}
"""Columns of ``RunResult.itl``: gaps between consecutive tokens of one request, as a weighted sample."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """One policy over one workload; the frames' columns are the ``*_DTYPES`` above.

    ``duration_s`` is the run's own clock at its end, ``wall_s`` what it took to compute; ``interrupted`` says that the
    user stopped it and that the requests marked ``unfinished`` were still under way. ``oracle`` is not empty where the
    policy saw true lengths of answers; ``controller`` names what changed caps.
    """

    scenario: str
    policy: str
    seed: int
    kind: Literal["sim", "live"]
    requests: pd.DataFrame
    servers: pd.DataFrame
    timeline: pd.DataFrame
    itl: pd.DataFrame
    duration_s: float
    wall_s: float
    interrupted: bool
    warnings: list[str]
    oracle: str = ""
    caps: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(CAP_DTYPES)).astype(CAP_DTYPES))
    controller: str = ""
