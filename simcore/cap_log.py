"""What became of the router's caps in a run."""

import math
from collections.abc import Mapping

import pandas as pd

from policies.ledger import ServerState

from .records import CAP_DTYPES

__all__ = ["CapLog"]


class CapLog:
    """Begins with the caps of the router's servers; then each change."""

    def __init__(self, servers: Mapping[str, ServerState]) -> None:
        self._rows: list[tuple[float, str, float]] = []
        for server_id, state in servers.items():
            self.add(0.0, server_id, state.max_running_requests)

    def add(self, now: float, server_id: str, cap: int | None) -> None:
        """The cap is this from now on, None for no cap."""
        self._rows.append((now, server_id, math.nan if cap is None else cap))

    def frame(self) -> pd.DataFrame:
        """The table of caps (``CAP_DTYPES``)."""
        return pd.DataFrame(self._rows, columns=list(CAP_DTYPES)).astype(CAP_DTYPES)
