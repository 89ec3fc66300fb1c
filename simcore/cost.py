"""What a run cost: servers by the hour, remote APIs by the token.

The whole run counts, warm-up included, for it is paid for too. A server with a price costs it from the run's beginning
to its end, busy or not. A remote API bills a request from its first token on: its prompt, and the tokens of its answer
that came; one that it turned away costs nothing. Retries and the requests under way when a run is interrupted are not
in the records, and so not in the cost.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from .records import RunResult
from .summary import Cost

__all__ = ["costs_of_servers", "total_cost"]

_HOUR_S = 3600.0
_MILLION = 1e6


def costs_of_servers(result: RunResult) -> pd.DataFrame:
    """By server_id what each cost: ``own`` by the hour, ``remote`` by the token, NaN where there is no such price."""
    servers = result.servers.set_index("server_id")
    billed = result.requests[result.requests["first_token_at"].notna()].groupby("server_id")
    tokens = billed[["prompt_tokens", "output_tokens"]].sum().reindex(servers.index, fill_value=0)
    by_token = servers["input_price_per_million"] * tokens["prompt_tokens"]
    by_token += servers["output_price_per_million"] * tokens["output_tokens"]
    return pd.DataFrame(
        {"own": servers["price_per_hour"] * (result.duration_s / _HOUR_S), "remote": by_token / _MILLION}
    )


def total_cost(costs: pd.DataFrame, finished: pd.DataFrame) -> Cost:
    """Of these servers, and over these finished requests of the whole run."""
    own, remote = _sum(costs["own"]), _sum(costs["remote"])
    total = _sum((own, remote))
    return Cost(
        total=total,
        own=own,
        remote=remote,
        per_1k_requests=_per(total, len(finished) / 1e3),
        per_million_output_tokens=_per(total, float(finished["output_tokens"].sum()) / _MILLION),
    )


def _sum(parts: Iterable[float]) -> float:
    """Of those that have a price; NaN where none has."""
    known = [float(part) for part in parts if part == part]
    return sum(known) if known else np.nan


def _per(total: float, count: float) -> float:
    return total / count if count else np.nan
