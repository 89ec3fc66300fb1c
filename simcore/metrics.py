"""From records to numbers: every formula of the summary, in one place.

Which requests count. A request is *measured* when it arrived at or after ``warmup_s``; the earlier ones load the
servers but enter no latency, throughput or SLO figure. The *window* goes from ``warmup_s`` to the last finish of a
measured request (to the end of the run when none finished), and every rate is a count of measured requests or of their
tokens over its length. So one population stands behind all rates, and ``goodput_rps * window_s`` requests met the SLO.
"""

from collections.abc import Hashable, Mapping
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from simcore.cost import costs_of_servers, total_cost
from simcore.records import STATUSES, RunResult
from simcore.summary import Imbalance, ModelSummary, ServerSummary, Spread, Summary

__all__ = ["LATENCIES", "QUANTILES", "latencies", "observe", "spread", "summarise", "weighted_spread"]

LATENCIES: Final = ("router_wait_s", "server_latency_s", "e2e_s", "ttft_s", "server_ttft_s", "tpot_s")
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}

_Floats = NDArray[np.float64]


def latencies(requests: pd.DataFrame) -> pd.DataFrame:
    """The six latencies of each request, in seconds; NaN where one of its ends did not happen.

    From the three timestamps: ``router_wait_s`` arrival to dispatch, ``server_latency_s`` dispatch to last token (what
    SGLang calls latency), ``e2e_s`` arrival to last token, their sum. ``ttft_s`` and ``server_ttft_s`` go to the first
    token from arrival and from dispatch. ``tpot_s = (e2e_s - ttft_s) / (output_tokens - 1)``, undefined for one token.
    """
    arrived, dispatched = requests["arrived_at"], requests["dispatched_at"]
    first_token, finished = requests["first_token_at"], requests["finished_at"]
    further_tokens = (requests["output_tokens"] - 1).astype("float64")
    return pd.DataFrame(
        {
            "router_wait_s": dispatched - arrived,
            "server_latency_s": finished - dispatched,
            "e2e_s": finished - arrived,
            "ttft_s": first_token - arrived,
            "server_ttft_s": first_token - dispatched,
            "tpot_s": (finished - first_token) / further_tokens.where(further_tokens > 0),
        },
        index=requests.index,
    )


def observe(result: RunResult, slo: Mapping[str, float | None], warmup_s: float) -> pd.DataFrame:
    """The measured requests in order of arrival, indexed by request_id: ``arrived_at``, LATENCIES and ``good``.

    Latencies are those of finished requests, NaN for the others. ``good`` is 1 for a request that met every limit of
    ``slo`` (keys among ttft_s, tpot_s, e2e_s; None is no limit; a single-token answer has no TPOT to miss), 0 for one
    that did not or that was rejected, failed or cancelled, and NaN where the run ended before the outcome was known.
    """
    requests = result.requests
    measured = requests[requests["arrived_at"] >= warmup_s].sort_values(["arrived_at", "request_id"])
    finished = measured["status"] == "finished"
    table = latencies(measured).where(finished)
    good = finished.astype("float64")
    for name, limit_s in _limits(slo).items():
        good = good.where(~(table[name] > limit_s), 0.0)
    table["good"] = good.where(measured["status"] != "unfinished")
    table.insert(0, "arrived_at", measured["arrived_at"])
    return table.set_index(pd.Index(measured["request_id"], name="request_id"))


def spread(values: _Floats) -> Spread:
    """Of the values that are not NaN; quantiles interpolate linearly between neighbours, as numpy does."""
    known = values[~np.isnan(values)]
    if known.size == 0:
        return _NO_SPREAD
    p50, p90, p95, p99 = (float(value) for value in np.quantile(known, list(QUANTILES.values())))
    return Spread(int(known.size), float(known.mean()), p50, p90, p95, p99, float(known.max()))


def weighted_spread(values: _Floats, counts: NDArray[np.int64]) -> Spread:
    """Of a sample in which ``values[i]`` occurred ``counts[i]`` times.

    A quantile is the least value that at least this share of the occurrences do not exceed (numpy's ``inverted_cdf``).
    """
    occurring = counts > 0
    values, counts = values[occurring], counts[occurring]
    if values.size == 0:
        return _NO_SPREAD
    order = np.argsort(values, kind="stable")
    values, reached = values[order], np.cumsum(counts[order])
    total = int(reached[-1])
    at = np.searchsorted(reached, np.array(list(QUANTILES.values())) * total, side="left")
    p50, p90, p95, p99 = (float(value) for value in values[at])
    return Spread(total, float(np.dot(values, counts[order]) / total), p50, p90, p95, p99, float(values[-1]))


def summarise(result: RunResult, slo: Mapping[str, float | None], warmup_s: float) -> Summary:
    """The run in numbers; the module's text says which requests count and over which time.

    - ``slo_attainment`` is the mean of ``good`` (see ``observe``), ``goodput_rps`` the good requests over the window;
      both are NaN without an SLO.
    - ``concurrency`` is the mean number of requests at the servers: the sum of server_latency_s over the window.
    - ``cache_hit_rate`` is cached over prompt tokens of the measured requests that were dispatched.
    - ``cost`` is ``cost.py``'s; ``models`` has the same figures of the requests for each model.
    - ``utilisation`` and ``imbalance`` are over the servers whose work is known: a remote API's is not.
    - ``itl_s``, ``utilisation`` (the servers' mean), ``retractions``, ``imbalance`` and ``servers`` cover the whole
      run, warm-up included: the counters behind them do not know when a request arrived.
    """
    requests = result.requests
    measured = requests[requests["arrived_at"] >= warmup_s]
    finished = measured[measured["status"] == "finished"]
    observed = observe(result, slo, warmup_s)
    window_s = _window_s(finished, result.duration_s, warmup_s)
    good = observed["good"].to_numpy(dtype="float64") if _limits(slo) else np.empty(0)
    dispatched = measured[measured["dispatched_at"].notna()]
    servers = _servers(result)
    working = [server for server in servers if not np.isnan(server.utilisation)] or servers
    spreads = {name: spread(observed[name].to_numpy(dtype="float64")) for name in LATENCIES}
    gaps = weighted_spread(result.itl["gap_s"].to_numpy(dtype="float64"), result.itl["count"].to_numpy(dtype="int64"))
    return Summary(
        scenario=result.scenario,
        policy=result.policy,
        seed=result.seed,
        kind=result.kind,
        interrupted=result.interrupted,
        duration_s=result.duration_s,
        warmup_s=warmup_s,
        window_s=window_s,
        counts=_by_status(requests),
        measured=_by_status(measured),
        slo=_limits(slo),
        request_throughput_rps=_ratio(len(finished), window_s),
        input_throughput_tps=_ratio(finished["prompt_tokens"].sum(), window_s),
        output_throughput_tps=_ratio(finished["output_tokens"].sum(), window_s),
        goodput_rps=_ratio(np.nansum(good), window_s) if good.size else np.nan,
        slo_attainment=_ratio(np.nansum(good), int(np.count_nonzero(~np.isnan(good)))),
        concurrency=_ratio(observed["server_latency_s"].sum(), window_s),
        cache_hit_rate=_ratio(dispatched["cached_tokens"].sum(), dispatched["prompt_tokens"].sum()),
        utilisation=_ratio(sum(server.utilisation for server in working), len(working)),
        retractions=int(requests["retractions"].sum()),
        imbalance=Imbalance(
            busy=_variation([server.utilisation for server in working]),
            requests=_variation([server.requests for server in working]),
            tokens=_variation([server.prompt_tokens + server.output_tokens for server in working]),
        ),
        latencies={**spreads, "itl_s": gaps},
        servers=servers,
        warnings=[*result.warnings, *_own_warnings(len(measured), len(finished), warmup_s)],
        oracle=result.oracle,
        controller=result.controller,
        cost=total_cost(costs_of_servers(result), requests[requests["status"] == "finished"]),
        models=_models(result, measured, observed, slo, window_s),
    )


_NO_SPREAD = Spread(0, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan)


def _limits(slo: Mapping[str, float | None]) -> dict[str, float]:
    return {name: limit_s for name, limit_s in slo.items() if limit_s is not None}


def _window_s(finished: pd.DataFrame, duration_s: float, warmup_s: float) -> float:
    end_s = duration_s if finished.empty else float(finished["finished_at"].max())
    return max(end_s - warmup_s, 0.0)


def _by_status(requests: pd.DataFrame) -> dict[str, int]:
    counts = {str(status): int(count) for status, count in requests["status"].value_counts().items()}
    unknown = set(counts) - set(STATUSES)
    if unknown:
        raise ValueError(f"requests of unknown status {sorted(unknown)}")
    return {status: counts.get(status, 0) for status in STATUSES}


def _models(
    result: RunResult, measured: pd.DataFrame, observed: pd.DataFrame, slo: Mapping[str, float | None], window_s: float
) -> list[ModelSummary]:
    """One a model that is served or asked for, in the order of their names."""
    names = sorted({*result.servers["model"], *result.requests["model"]} - {""})
    costs = costs_of_servers(result)
    return [_model(name, result, costs, measured, observed, slo, window_s) for name in names]


def _model(
    name: str,
    result: RunResult,
    costs: pd.DataFrame,
    measured: pd.DataFrame,
    observed: pd.DataFrame,
    slo: Mapping[str, float | None],
    window_s: float,
) -> ModelSummary:
    servers = result.servers.loc[result.servers["model"] == name, "server_id"]
    mine, everywhere = measured[measured["model"] == name], result.requests[result.requests["model"] == name]
    finished, seen = mine[mine["status"] == "finished"], observed.loc[mine["request_id"]]
    good = seen["good"].to_numpy(dtype="float64") if _limits(slo) else np.empty(0)
    return ModelSummary(
        model=name,
        servers=len(servers),
        measured=_by_status(mine),
        request_throughput_rps=_ratio(len(finished), window_s),
        output_throughput_tps=_ratio(finished["output_tokens"].sum(), window_s),
        goodput_rps=_ratio(np.nansum(good), window_s) if good.size else np.nan,
        slo_attainment=_ratio(np.nansum(good), int(np.count_nonzero(~np.isnan(good)))),
        cost=total_cost(costs.loc[servers], everywhere[everywhere["status"] == "finished"]),
        latencies={latency: spread(seen[latency].to_numpy(dtype="float64")) for latency in LATENCIES},
    )


def _servers(result: RunResult) -> list[ServerSummary]:
    requests = result.requests
    tokens = requests.groupby("server_id")[["prompt_tokens", "cached_tokens", "output_tokens"]].sum().to_dict("index")
    dispatched = requests["server_id"].value_counts().to_dict()
    finished = requests.loc[requests["status"] == "finished", "server_id"].value_counts().to_dict()
    caps = result.caps["server_id"].value_counts().to_dict()
    none = {"prompt_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
    costs = costs_of_servers(result).sum(axis=1, min_count=1)
    return [
        _server(
            row,
            float(costs[row["server_id"]]),
            result.duration_s,
            int(dispatched.get(row["server_id"], 0)),
            int(finished.get(row["server_id"], 0)),
            {str(name): int(value) for name, value in tokens.get(row["server_id"], none).items()},
            max(int(caps.get(row["server_id"], 0)) - 1, 0),
        )
        for row in result.servers.to_dict("records")
    ]


def _server(
    row: Mapping[Hashable, object],
    cost: float,
    duration_s: float,
    dispatched: int,
    finished: int,
    tokens: Mapping[str, int],
    cap_changes: int,
) -> ServerSummary:
    number = {name: value for name, value in row.items() if isinstance(value, int | float)}
    return ServerSummary(
        server_id=str(row["server_id"]),
        profile=str(row["profile"]),
        requests=dispatched,
        finished=finished,
        prompt_tokens=tokens["prompt_tokens"],
        cached_tokens=tokens["cached_tokens"],
        output_tokens=tokens["output_tokens"],
        cache_hit_rate=_ratio(tokens["cached_tokens"], tokens["prompt_tokens"]),
        utilisation=_ratio(number["busy_s"], duration_s),
        prefill_share=_ratio(number["prefill_s"], duration_s),
        decode_share=_ratio(number["decode_s"], duration_s),
        mixed_share=_ratio(number["mixed_s"], duration_s),
        steps=int(number["steps"]),
        retractions=int(number["retractions"]),
        peak_kv_tokens=int(number["peak_kv_tokens"]),
        kv_tokens_capacity=int(number["kv_tokens_capacity"]),
        peak_running=int(number["peak_running"]),
        max_running_requests=int(number["max_running_requests"]),
        cap_changes=cap_changes,
        model=str(row["model"]),
        cost=cost,
    )


def _own_warnings(measured: int, finished: int, warmup_s: float) -> list[str]:
    if measured == 0:
        return [f"no request arrived after the warm-up of {warmup_s:g} s: nothing was measured"]
    if finished == 0:
        return ["no measured request finished: there are no latencies"]
    return []


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else np.nan


def _variation(work: list[float]) -> float:
    return _ratio(float(np.std(work)), float(np.mean(work))) if work else np.nan
