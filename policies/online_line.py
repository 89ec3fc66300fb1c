"""A straight line through what was seen of late."""

__all__ = ["OnlineLine"]


class OnlineLine:
    """Least squares with forgetting: each new point leaves the older ones ``memory`` of their weight. A line that falls
    is replaced by the mean: more load never makes a server faster, whatever chance says."""

    def __init__(self, memory: float = 0.98) -> None:
        self._memory = memory
        self._weight = self._mean_x = self._mean_y = self._xx = self._xy = self._slope = 0.0

    def saw(self, x: float, y: float) -> None:
        """One more point."""
        memory = self._memory
        before = self._weight * memory
        self._weight = before + 1.0
        dx, dy = x - self._mean_x, y - self._mean_y
        self._mean_x += dx / self._weight
        self._mean_y += dy / self._weight
        share = before / self._weight
        self._xx = memory * self._xx + share * dx * dx
        self._xy = memory * self._xy + share * dx * dy
        self._slope = self._xy / self._xx if self._xx > 1e-12 and self._xy > 0 else 0.0

    def at(self, x: float) -> float:
        """The line's value, at least 0; 0 where nothing was seen."""
        value = self._mean_y + self._slope * (x - self._mean_x)
        return value if value > 0 else 0.0
