"""Means since the last report, from counters that only grow."""

__all__ = ["GrowingMeans", "GrowingRate"]


class GrowingMeans:
    """Of one latency: the mean over what ended since the last look; what it was before where nothing did.

    None at first: what ended before the router looked was under another's load, and no simulated server has a past.
    """

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None
        self._mean: float | None = None

    def look(self, total: float, count: float) -> float | None:
        """``total`` seconds over ``count`` observations since the server's start."""
        if self._last is not None and count > self._last[1]:
            self._mean = (total - self._last[0]) / (count - self._last[1])
        self._last = (total, count)
        return self._mean


class GrowingRate:
    """Of one count: its growth a second since the last look, 0 at the first."""

    def __init__(self) -> None:
        self._last: tuple[float, float] | None = None

    def look(self, now: float, count: float) -> float:
        """``count`` since the server's start."""
        last, self._last = self._last, (now, count)
        if last is None or now <= last[0]:
            return 0.0
        return max(count - last[1], 0.0) / (now - last[0])
