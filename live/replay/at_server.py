"""What a server says of where a request's time at it went."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["time_at_server"]


def time_at_server(meta: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds in its queue before the first prefill step, and from there to the first token; NaN where it is not told.

    ``meta`` is SGLang's meta_info, which tells it with --enable-metrics. Its queue_time counts every stay in the queue;
    of a request that was retracted the first is from when the API server had dispatched it.
    """
    entered, prefilled = meta.get("forward_entry_time"), meta.get("prefill_finished_time")
    if not isinstance(entered, float) or not isinstance(prefilled, float):
        return math.nan, math.nan
    queued_s = meta.get("queue_time")
    if meta.get("num_retractions"):
        queued_s = entered - meta["api_server_dispatch_finish_ts"] if "api_server_dispatch_finish_ts" in meta else None
    return queued_s if isinstance(queued_s, float) else math.nan, prefilled - entered
