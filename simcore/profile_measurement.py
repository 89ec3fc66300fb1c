"""The part of a service profile that says how a server was measured and how far the result can be trusted."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .launch import PositiveFloat, PositiveInt, Seconds
from .profile_parts import Residuals, Slowdown

__all__ = ["Confidence", "Host", "LoadReport", "Measurement", "Pace", "Steal", "Trust"]

Trust = Literal["good", "usable", "do not trust"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadReport(_Part):
    """How old a load report of the server is when it is read."""

    round_trip_s: Seconds
    """Median time of one request for it."""
    refresh_s: Seconds | None
    """Mean time between two refreshes while the server decodes; None where each reading was fresh."""
    delay_s: Seconds
    """Mean age of the load that it tells, as it is read: how long ago a request had to come, or to end, for it to show.
    """


class Confidence(_Part):
    """Half widths of 95% intervals, relative to the prediction; the mean over the points measured (bootstrap)."""

    decode: NonNegative | None
    prefill: NonNegative | None
    mixed: NonNegative | None


class Steal(_Part):
    """What the host of a virtual machine had of its processor time for others while a server on it was measured."""

    mean: NonNegative
    """Share of the processor time, over the samples: the profile's times are those beside so much of it."""
    cost: NonNegative
    """A step takes ``1 + cost * share`` times as long as beside none. Expected to be 1, and corrected by samples."""

    def factor(self, share: float) -> float:
        """How many times as long as in the profile a step takes where so much is stolen."""
        return (1.0 + self.cost * share) / (1.0 + self.cost * self.mean)


class Pace(_Part):
    """How fast the machine of a server was while the server was measured, by a small piece of work timed beside it."""

    work_s: PositiveFloat
    """Seconds on a core that the work took, over the samples: the profile's times are those at this pace."""
    work: PositiveInt
    """Which work that was: of another one the times are not to be compared with these."""
    decode_cost: NonNegative
    """A decode step takes ``longer ** cost`` times as long where the work takes ``longer`` times as long. 1 for steps
    that are as the work is; nearly 0 on a GPU. Expected to be 0.5, and corrected by samples."""
    prefill_cost: NonNegative
    """Of a prefill step: less where it is one long computation, which a core's neighbours slow down less."""

    def factors(self, work_s: float) -> tuple[float, float]:
        """How many times as long as in the profile a decode and a prefill step take where the work takes so long."""
        longer = work_s / self.work_s
        return longer**self.decode_cost, longer**self.prefill_cost


class Host(_Part):
    """What the machine of a server was like while the server was measured, and what that is worth."""

    steal: Steal
    pace: Pace | None
    """None where it was not measured."""

    def factors(self, stolen: float, work_s: float | None) -> tuple[float, float]:
        """How many times as long as in the profile a decode and a prefill step take where so much is stolen, and the
        timed work takes so long (None: not known, so as long as there)."""
        decode, prefill = (1.0, 1.0) if self.pace is None or work_s is None else self.pace.factors(work_s)
        of_steal = self.steal.factor(stolen)
        return decode * of_steal, prefill * of_steal

    def slowdown(self, at_s: float, stolen: float, work_s: float | None) -> Slowdown:
        """Of the profile's times, where that is so from then on."""
        decode, prefill = self.factors(stolen, work_s)
        return Slowdown(at_s=at_s, decode=decode, prefill=prefill)


class Measurement(_Part):
    """One calibration: what it measured, how well the fit does on samples it has not seen, and the verdict."""

    machine: str
    """What the command ran on, which is the server's machine if the server is local."""
    server_args: dict[str, str | int | float | bool | None]
    """Launch arguments of the server that decide its speed, as it resolved them."""
    started_at: str
    duration_s: PositiveFloat
    samples: PositiveInt
    held_back: Residuals
    """Of five fits, each to four fifths of the samples, on the other fifths."""
    confidence: Confidence
    server_clock_ratio: NonNegative | None
    """Client-side over server-side decode step times, median; None where the server tells none."""
    load_report: LoadReport | None
    host: Host | None = None
    """None where the server's machine could not be looked at."""
    verdict: Trust
    reasons: tuple[str, ...] = ()
