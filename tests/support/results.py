"""Small RunResults made by hand."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from simcore.metrics import observe, summarise
from simcore.records import ITL_DTYPES, REQUEST_DTYPES, SERVER_DTYPES, TIMELINE_DTYPES, RunResult
from simcore.report import MeasuredRun

_REQUEST: dict[str, object] = {
    "session_id": -1,
    "model": "m",
    "server_id": "s0",
    "status": "finished",
    "reason": "",
    "arrived_at": np.nan,
    "dispatched_at": np.nan,
    "first_token_at": np.nan,
    "finished_at": np.nan,
    "prompt_tokens": 100,
    "cached_tokens": 0,
    "output_tokens": 11,
    "attempts": 1,
    "retractions": 0,
    "server_queue_s": np.nan,
    "prefill_s": np.nan,
}
_SERVER: dict[str, object] = {
    "server_id": "s0",
    "profile": "p",
    "busy_s": 5.0,
    "prefill_s": 1.0,
    "decode_s": 3.0,
    "mixed_s": 1.0,
    "steps": 100,
    "prefill_tokens": 1000,
    "cached_tokens": 0,
    "decode_tokens": 100,
    "retractions": 0,
    "peak_kv_tokens": 500,
    "kv_tokens_capacity": 1000,
    "max_running_requests": 16,
    "peak_running": 4,
    "model": "m",
    "price_per_hour": np.nan,
    "input_price_per_million": np.nan,
    "output_price_per_million": np.nan,
}


def request_table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Requests from what matters of each; the rest is a finished request of 100 prompt and 11 output tokens."""
    whole = [{"request_id": number, **_REQUEST, **row} for number, row in enumerate(rows)]
    return pd.DataFrame(whole, columns=list(REQUEST_DTYPES)).astype(REQUEST_DTYPES)


def make_result(
    rows: Sequence[Mapping[str, object]] | pd.DataFrame,
    *,
    servers: Sequence[Mapping[str, object]] = ({},),
    itl: Mapping[str, Sequence[float]] | None = None,
    duration_s: float = 10.0,
    **fields: object,
) -> RunResult:
    table = pd.DataFrame([{**_SERVER, **row} for row in servers], columns=list(SERVER_DTYPES)).astype(SERVER_DTYPES)
    times = np.arange(0.0, duration_s, 0.5)
    samples = [
        {"t_s": t, "server_id": name, "running": 3, "queued": 1, "kv_tokens_used": 400, "in_flight": 4}
        for t in times
        for name in table["server_id"]
    ]
    what = {"scenario": "tiny", "policy": "random", "seed": 0, "kind": "sim", "interrupted": False, "warnings": []}
    return RunResult(
        requests=rows if isinstance(rows, pd.DataFrame) else request_table(rows),
        servers=table,
        timeline=pd.DataFrame(samples, columns=list(TIMELINE_DTYPES)).astype(TIMELINE_DTYPES),
        itl=pd.DataFrame(itl or {"gap_s": [], "count": []}).astype(ITL_DTYPES),
        duration_s=duration_s,
        wall_s=0.1,
        **{**what, **fields},  # type: ignore[arg-type]
    )


def noisy_result(*, slower: float = 1.0, requests: int = 2000, luck: int = 0, **fields: object) -> RunResult:
    """Poisson arrivals with the same load for every policy; ``slower`` scales the latencies, ``luck`` the policy's own
    noise."""
    seed = fields.get("seed", 0)
    shared, own = np.random.default_rng(seed), np.random.default_rng([1, luck, seed])  # type: ignore[list-item, arg-type]
    arrived = np.cumsum(shared.exponential(0.1, requests))
    ttft = slower * shared.exponential(0.05, requests) * own.uniform(0.8, 1.2, requests)
    tokens = shared.integers(2, 200, requests)
    finished = arrived + ttft + slower * 0.01 * (tokens - 1)
    table = request_table([{}] * requests).assign(
        arrived_at=arrived,
        dispatched_at=arrived,
        first_token_at=arrived + ttft,
        finished_at=finished,
        output_tokens=tokens,
    )
    return make_result(table, duration_s=float(finished.max()), **fields)  # type: ignore[arg-type]


def measured(result: RunResult, slo: Mapping[str, float | None] | None = None, warmup_s: float = 0.0) -> MeasuredRun:
    return MeasuredRun(summarise(result, slo or {}, warmup_s), observe(result, slo or {}, warmup_s))
