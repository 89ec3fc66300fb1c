"""Raw samples of a calibration: one JSON line each, written as they are taken, so that nothing measured is lost."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from simcore.errors import UserError

__all__ = [
    "SAMPLES_SCHEMA_VERSION",
    "DecodeSample",
    "PrefillSample",
    "ReportSample",
    "RideSample",
    "Sample",
    "SampleFile",
]

SAMPLES_SCHEMA_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class DecodeSample:
    """Decode steps, ``steps`` in one run or a few, of ``batch`` requests, each with ``context_tokens`` on average (the
    current one included).

    ``step_s`` by the server's own count (by the client where it keeps none), ``client_step_s`` by the tokens' arrivals;
    both are means without the steps that something else on the machine drew out.
    """

    batch: int
    context_tokens: float
    steps: int
    step_s: float
    client_step_s: float
    others_cores: float
    """Processor cores that other work on the server's machine used meanwhile; 0 where that cannot be seen."""
    point: str
    stolen: float = 0.0
    """The share of the machine's processor time that the host of a virtual machine had for others meanwhile."""
    work_s: float | None = None
    """Seconds on a core that a small piece of work took on the machine meanwhile; None where it was not timed."""
    server_cores: float | None = None
    """Of a core, how much the busiest of the server's processes used meanwhile; None where that cannot be seen."""
    ingress_spacing_s: float | None = None
    """Between two of the requests, which were sent at once, on their way to the scheduler, by the server's own
    timestamps (``--enable-metrics``); None where it gives none, or there was one request."""
    last_token_s: float | None = None
    """By which the first and the last of the steps together took longer than two others; None where there was more than
    one request, as they begin and end in the same steps."""
    kind: Literal["decode"] = "decode"


@dataclass(frozen=True, slots=True)
class PrefillSample:
    """A few prompts on an idle server, one after the other, each prefilled in one step: means, without the steps that
    something else on the machine drew out. ``ttft_s`` as the client saw it.

    ``ingress_s`` from sending to the start of the step, ``egress_s`` from its end to the first token at the client.
    """

    new_tokens: int
    cached_tokens: int
    step_s: float
    ttft_s: float
    ingress_s: float
    egress_s: float
    others_cores: float
    point: str
    stolen: float = 0.0
    work_s: float | None = None
    server_cores: float | None = None
    kind: Literal["prefill"] = "prefill"


@dataclass(frozen=True, slots=True)
class RideSample:
    """A prompt of ``new_tokens`` that came while ``batch`` requests decoded, and what it cost them.

    ``extra_s`` is the time by which their tokens were late. With mixed chunks the prefill took the place of one decode
    step, so the step took ``extra_s`` more than that.
    """

    batch: int
    context_tokens: float
    new_tokens: int
    extra_s: float
    decode_step_s: float
    others_cores: float
    point: str
    stolen: float = 0.0
    work_s: float | None = None
    server_cores: float | None = None
    kind: Literal["ride"] = "ride"


@dataclass(frozen=True, slots=True)
class ReportSample:
    """Of a request that came and ended while another decoded: how long after that a load report showed it. The round
    trip is the median of the readings meanwhile, and ``refresh_s`` the mean time between the writing of two reports;
    None where the first reading showed it."""

    round_trip_s: float
    refresh_s: float | None
    seen_after_s: float
    gone_after_s: float
    point: str
    kind: Literal["report"] = "report"


Sample = DecodeSample | PrefillSample | RideSample | ReportSample
_SAMPLE: Final[TypeAdapter[Sample]] = TypeAdapter(Annotated[Sample, Field(discriminator="kind")])


class SampleFile:
    """``samples.jsonl``: a line about the server, then a line a sample. ``header`` tells one server from another."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self._header = {"schema_version": SAMPLES_SCHEMA_VERSION, **header}

    def start(self) -> None:
        """A new file. Raises UserError if it cannot be written."""
        try:
            self.path.write_text(json.dumps(self._header) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from error

    def resume(self) -> list[Sample]:
        """The samples of an earlier attempt on the same server. Raises UserError where it was another one, or measured
        in another way."""
        header, samples = read_samples(self.path)
        for name, value in self._header.items():
            if header.get(name) != value:
                raise UserError(
                    f"{self.path}: was measured on another server, or in another way: "
                    f"{name} was {header.get(name)!r}, now it is {value!r}"
                )
        self._drop_torn_line()
        return samples

    def append(self, samples: list[Sample]) -> None:
        """Write them at once, whole lines."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(asdict(sample)) + "\n" for sample in samples)

    def sha256(self) -> str:
        """Of the file, in hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def _drop_torn_line(self) -> None:
        data = self.path.read_bytes()
        if not data.endswith(b"\n"):
            self.path.write_bytes(data[: data.rfind(b"\n") + 1])


def read_samples(path: Path) -> tuple[dict[str, Any], list[Sample]]:
    """The header and the samples; a last line that was cut off in the middle is left out. Raises UserError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    first, *lines = text.split("\n")[:-1] or ["{}"]
    header = _header_of(path, first)
    samples: list[Sample] = []
    for number, line in enumerate(lines, start=2):
        try:
            samples.append(_SAMPLE.validate_json(line))
        except ValidationError as error:
            raise UserError(f"{path}, line {number}: not a sample of a calibration") from error
    return header, samples


def _header_of(path: Path, line: str) -> dict[str, Any]:
    try:
        header = dict(json.loads(line))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}, line 1: not the first line of a calibration's samples") from error
    if header.get("schema_version") != SAMPLES_SCHEMA_VERSION:
        raise UserError(f"{path}: not a file of samples that this simroute reads")
    return header
