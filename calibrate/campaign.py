"""A calibration's measuring: passes over the plan until every point is known well enough or the time is spent."""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import median_abs_deviation
from scipy.stats import t as student

from .errors import ForeignTrafficError, ServerMisbehavedError
from .plan import LOAD_REPORT, Plan, Point
from .probes import Prober
from .samples import DecodeSample, PrefillSample, ReportSample, RideSample, Sample
from .split import was_disturbed

__all__ = ["Campaign", "Progress"]

_ENOUGH = 0.02  # half width of a point's 95% interval, relative to its mean
_FEWEST = 3
_MOST = 12
_FIRST_GUESS_TOKENS_PER_S = 20_000.0
_TOLERATED_MISSES = 3

Progress = Callable[[str, int, float], None]
"""Told the point under way, the samples so far, and the share of the budget that is spent."""


@dataclass(slots=True)
class _Record:
    """What is known of one point."""

    values: list[float]
    """Of the visits that were not disturbed."""
    visits: int = 0
    cost_s: float | None = None
    misses: int = 0

    def standing(self) -> tuple[int, int]:
        """Good visits, then all of them: on a busy machine every point gets its turn."""
        return len(self.values), self.visits

    def half_width(self) -> float:
        """Of the 95% interval of the centre, relative to it; infinite below two values. The spread is robust, so that
        one bad visit does not take all the time."""
        if len(self.values) < 2:
            return math.inf
        error = float(median_abs_deviation(self.values, scale="normal")) / math.sqrt(len(self.values))
        return float(student.ppf(0.975, len(self.values) - 1) * error / abs(np.median(self.values)))


class Campaign:
    """``samples`` grows as points are measured; ``on_samples`` is told of each point's at once, to keep them."""

    def __init__(
        self,
        plan: Plan,
        prober: Prober,
        earlier: Sequence[Sample],
        on_samples: Callable[[list[Sample]], None],
        on_progress: Progress,
    ) -> None:
        self._plan = plan
        self._prober = prober
        self._on_samples = on_samples
        self._on_progress = on_progress
        self.samples: list[Sample] = []
        self.missed: dict[str, str] = {}
        """Points that the server did not let be measured, and why."""
        self._records: dict[str, _Record] = defaultdict(lambda: _Record([]))
        self._keep(list(earlier))

    async def run(self, budget_s: float) -> None:
        """Measure until all points are known to 2% or the budget is spent. Raises UserError when the server fails;
        the samples so far stay."""
        clock = asyncio.get_running_loop().time
        started = clock()
        deadline = started + budget_s
        while (point := self._next(deadline - clock())) is not None:
            now = clock()
            self._on_progress(point.name, len(self.samples), (now - started) / budget_s)
            try:
                async with asyncio.timeout(deadline - now):
                    samples = await self._prober.take(point)
            except TimeoutError:
                return
            except ServerMisbehavedError as error:
                self._miss(point, error)
                continue
            self._records[point.name].cost_s = clock() - now
            self._keep(samples)
            self._on_samples(samples)

    def _keep(self, samples: list[Sample]) -> None:
        self.samples += samples
        for point, value, disturbed in _point_values(samples):
            record = self._records[point]
            record.visits += 1
            if not disturbed:
                record.values.append(value)

    def _miss(self, point: Point, error: ServerMisbehavedError | ForeignTrafficError) -> None:
        record = self._records[point.name]
        record.misses += 1
        if record.misses >= _TOLERATED_MISSES:
            self.missed[point.name] = str(error)

    def _next(self, left_s: float) -> Point | None:
        """Every point once, in order; then until each has three good visits; then the one with the widest interval."""
        fitting = [
            point for point in self._plan.points if point.name not in self.missed and self._cost_s(point) < left_s
        ]
        if not fitting:
            return None
        records = self._records
        untouched = [point for point in fitting if records[point.name].visits == 0]
        if untouched:
            return untouched[0]
        wide = [point for point in fitting if records[point.name].visits < _MOST]
        fewest = min(wide, key=lambda point: records[point.name].standing(), default=None)
        if fewest is not None and len(records[fewest.name].values) < _FEWEST:
            return fewest
        widest = max(wide, key=lambda point: records[point.name].half_width(), default=None)
        if widest is None or records[widest.name].half_width() < _ENOUGH:
            return None
        return widest

    def _cost_s(self, point: Point) -> float:
        known = self._records[point.name].cost_s
        if known is not None:
            return known
        return point.work_tokens / self._tokens_per_s() + point.steps * self._step_s(point)

    def _tokens_per_s(self) -> float:
        """The slowest prefill so far."""
        rates = [s.new_tokens / s.step_s for s in self.samples if isinstance(s, PrefillSample) and s.new_tokens > 200]
        return min(rates, default=_FIRST_GUESS_TOKENS_PER_S)

    def _step_s(self, point: Point) -> float:
        if point.steps == 1:
            return 0.0
        return max((s.step_s for s in self.samples if isinstance(s, DecodeSample)), default=self._plan.step_s)


def _point_values(samples: list[Sample]) -> list[tuple[str, float, bool]]:
    """Of each visit the one value by which its point's interval is judged, and whether it was disturbed."""
    values = []
    for sample in samples:
        match sample:
            case DecodeSample() | PrefillSample():
                values.append((sample.point, sample.step_s, was_disturbed(sample)))
            case RideSample():
                # Judged beside the decode steps around it, as the difference of the two is small.
                values.append((sample.point, sample.extra_s + 6 * sample.decode_step_s, was_disturbed(sample)))
            case ReportSample():
                pass
    reports = [sample.round_trip_s for sample in samples if isinstance(sample, ReportSample)]
    if reports:
        values.append((LOAD_REPORT, float(np.median(reports)), False))
    return values
