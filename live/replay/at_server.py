"""What a server says of where a request's time at it went."""

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["time_at_server"]


def time_at_server(meta: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds until its first prefill step began, and from there to the first token; NaN where it is not told.

    ``meta`` is SGLang's meta_info, which tells it with --enable-metrics. Its own queue_time begins when the scheduler
    looks into its inbox, after the step under way, and counts every stay of a retracted request: so the first is from
    when the API server had sent the request to the scheduler, which may be a moment after it was taken up.
    """
    sent, entered, prefilled = (
        meta.get(name, math.nan)
        for name in ("api_server_dispatch_finish_ts", "forward_entry_time", "prefill_finished_time")
    )
    return max(entered - sent, 0.0) if entered == entered and sent == sent else math.nan, prefilled - entered
