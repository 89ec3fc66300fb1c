"""The part of a service profile that says how a server was measured and how far the result can be trusted."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .launch import PositiveFloat, PositiveInt, Seconds
from .profile_parts import Residuals

__all__ = ["Confidence", "LoadReport", "Measurement", "Trust"]

Trust = Literal["good", "usable", "do not trust"]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadReport(_Part):
    """How old a load report of the server is when it is read."""

    round_trip_s: Seconds
    """Median time of one request for it."""
    refresh_s: Seconds
    """Mean time between two refreshes while the server decodes."""
    delay_s: Seconds
    """Mean age on arrival: half the round trip, and the mean age of what the server holds."""


class Confidence(_Part):
    """Half widths of 95% intervals, relative to the prediction; the mean over the points measured (bootstrap)."""

    decode: NonNegative | None
    prefill: NonNegative | None
    mixed: NonNegative | None


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
    """Of a fit to four fifths of the samples on the other fifth."""
    confidence: Confidence
    server_clock_ratio: NonNegative | None
    """Client-side over server-side decode step times, median; None where the server tells none."""
    load_report: LoadReport | None
    verdict: Trust
    reasons: tuple[str, ...] = ()
