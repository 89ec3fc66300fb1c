"""A live run's table of servers, from their own counters where they keep them, else from what was seen of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from live.routing.fleet import Member
from simcore.records import SERVER_DTYPES

__all__ = ["Counters", "read_counters", "server_frame"]

Counters = dict[str, float]

_EMULATOR_COUNTERS = (
    "busy_s",
    "prefill_s",
    "decode_s",
    "mixed_s",
    "steps",
    "prefill_tokens",
    "cached_tokens",
    "decode_tokens",
    "retractions",
)


async def read_counters(member: Member) -> Counters:
    """A server's counters now; a run's are the difference. Raises BackendError and aiohttp.ClientError."""
    if member.facts.is_emulator:
        said = (await member.backend.get_json("/server_info"))["emulator"]
        counters = {name: said[name] for name in (*_EMULATOR_COUNTERS, "late_s")}
        return {name: math.nan if value is None else float(value) for name, value in counters.items()}
    if member.backend.name != "sglang":
        return {}
    loads = (await member.backend.get_json("/v1/loads")).get("loads") or []
    return _sglang_counters(loads)


def _sglang_counters(loads: list[dict[str, Any]]) -> Counters:
    """``decode_moments`` is [n, sum B, sum T_us, ...] over the decode steps that SGLang times, not all: tokens
    are counted from the requests. Servers that do not keep it have none."""
    moments = [load["decode_moments"] for load in loads if load.get("decode_moments")]
    if not moments:
        return {}
    prefill_s = sum(load.get("total_prefill_busy_us", 0) for load in loads) / 1e6
    decode_s = sum(moment[2] for moment in moments) / 1e6
    return {
        "steps": sum(moment[0] for moment in moments),
        "decode_s": decode_s,
        "prefill_s": prefill_s,
        "busy_s": decode_s + prefill_s,
        "prefill_tokens": sum(load.get("total_prefill_uncached_tokens", 0) for load in loads),
    }


def server_frame(
    members: list[Member],
    counters: dict[str, Counters],
    peaks: dict[str, tuple[int, int]],
    requests: pd.DataFrame,
    terms: Sequence[Mapping[str, float]],
) -> pd.DataFrame:
    """The table of servers (``SERVER_DTYPES``). Times that a server does not tell are NaN; tokens are counted from the
    requests then, and steps are 0."""
    rows = []
    for member, prices in zip(members, terms, strict=True):
        said, facts = counters.get(member.server_id, {}), member.facts
        mine = requests[(requests["server_id"] == member.server_id) & (requests["output_tokens"] > 0)]
        running, used = peaks.get(member.server_id, (0, 0))
        cached = int(mine["cached_tokens"].sum())
        rows.append(
            {
                "server_id": member.server_id,
                "profile": _kind(member),
                **{name: said.get(name, math.nan) for name in ("busy_s", "prefill_s", "decode_s")},
                "mixed_s": said.get("mixed_s", 0.0 if said else math.nan),
                "steps": int(said.get("steps", 0)),
                "prefill_tokens": int(said.get("prefill_tokens", mine["prompt_tokens"].sum() - cached)),
                "cached_tokens": int(said.get("cached_tokens", cached)),
                "decode_tokens": int(said.get("decode_tokens", (mine["output_tokens"] - 1).sum())),
                "retractions": int(said.get("retractions", mine["retractions"].sum())),
                "peak_kv_tokens": used,
                "kv_tokens_capacity": facts.kv_tokens_capacity or 0,
                "max_running_requests": facts.max_running_requests or 0,
                "peak_running": running,
                "model": facts.model,
                **prices,
            }
        )
    return pd.DataFrame(rows).astype(SERVER_DTYPES)


def _kind(member: Member) -> str:
    facts = member.facts
    if facts.is_emulator:
        return f"emulator of {facts.extra['emulator']['profile']}"
    return " ".join(filter(None, (member.backend.name, facts.version)))
