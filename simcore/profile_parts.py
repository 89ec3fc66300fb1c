"""The parts of a service profile: coefficients of the step-time model, memory, provenance, residuals."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .launch import PositiveFloat, PositiveInt, Seconds

__all__ = [
    "DecodeSteps",
    "GpuMemory",
    "MixedSteps",
    "PrefillSteps",
    "Provenance",
    "RequestOverheads",
    "Residual",
    "Residuals",
    "Slowdown",
    "StepCoefficients",
    "ValidRange",
]

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DecodeSteps(_Part):
    """Decode: for a fixed batch, ``base_s + context_s * total context``; a table over batches, linear between them.

    ``base_s`` may fall from a batch to the next: kernels like some numbers of rows better than others."""

    batches: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    base_s: tuple[Seconds, ...]
    """Per batch: the part that does not depend on context."""
    context_s: tuple[Seconds, ...]
    """Per batch: seconds per token of the batch's total context."""

    @model_validator(mode="after")
    def _is_table(self) -> Self:
        if not len(self.batches) == len(self.base_s) == len(self.context_s):
            raise ValueError("batches, base_s and context_s must be equally long")
        if any(left >= right for left, right in pairwise(self.batches)):
            raise ValueError("batches must increase")
        return self


class PrefillSteps(_Part):
    """Prefill of ``n`` new tokens: ``base_s + below_knee_s * min(n, knee_tokens) + per_token_s * max(n - knee_tokens,
    0) + per_attended_s * attended``, with ``attended`` the sum over chunks of ``s * (h + s / 2)`` for ``s`` new tokens
    after ``h`` that are in the KV cache. Below the knee a step waits for the weights, above it for the arithmetic.

    A chunk after ``h`` cached tokens adds ``per_cached_s * h``, for reading them, and ``per_cached_pair_s * h * h /
    2``, for what an attention kernel without cached prefixes computes anew (PyTorch's on a CPU; 0 on GPUs)."""

    base_s: Seconds
    below_knee_s: Seconds
    per_token_s: Seconds
    knee_tokens: NonNegative
    per_attended_s: Seconds
    per_cached_s: Seconds = 0.0
    per_cached_pair_s: Seconds = 0.0


class MixedSteps(_Part):
    """A step of prefill chunks and decode rows: a prefill in which each decode row is one more token, plus the decode
    rows' attention at ``decode_context_ratio`` times what it costs in a pure decode step (the kernel for mixed
    batches is tuned for chunks, not for single rows)."""

    decode_context_ratio: NonNegative


class StepCoefficients(_Part):
    """The step-time model. ``StepTimes`` compiles it."""

    decode: DecodeSteps
    prefill: PrefillSteps
    mixed: MixedSteps
    floor_s: Seconds
    """Lower bound on the part of any step that does not depend on context: reading the weights once."""
    overhead_s: Seconds
    """Added to every step: what the server spends between the kernels of two steps."""
    noise_cv: NonNegative
    """Coefficient of variation of a multiplicative lognormal noise on step times; 0: none."""


class RequestOverheads(_Part):
    """Time a request spends outside the scheduler."""

    ingress_s: Seconds
    """From the router's dispatch to the scheduler's queue: HTTP and inter-process messages."""
    ingress_per_prompt_token_s: Seconds
    """Added to ingress for each token of the prompt: tokenizing and copying."""
    ingress_spacing_s: Seconds = 0.0
    """Between two requests on their way in, at least: what the process that takes them in does for each. 0 also where
    it is not known."""
    egress_s: Seconds
    """From the end of the step that made a token to its arrival at the router: detokenizing and HTTP."""
    last_token_s: Seconds = 0.0
    """Added to egress for the last token of several: a request's end is work of its own (its KV goes to the prefix
    cache), and its first decode step is longer than others. 0 also where it is not known."""

    def back_s(self, output_tokens: int) -> float:
        """The egress of the last of so many tokens."""
        return self.egress_s + self.last_token_s if output_tokens > 1 else self.egress_s


class Slowdown(_Part):
    """Factors on the times of steps that begin from a time on: an accelerator that throttles, a host that serves
    others."""

    at_s: Seconds
    """Since the run began; 1 before the first."""
    decode: PositiveFloat
    prefill: PositiveFloat
    """Of mixed steps as well."""


class GpuMemory(_Part):
    """What SGLang sizes its KV pool by (``kv_capacity.py``), for tensor parallel size 1."""

    gpu_memory_mib: PositiveFloat
    """As nvidia-smi reports the total."""
    runtime_mib: NonNegative
    """In use before the weights are loaded: the CUDA context and the driver."""
    weight_bytes: PositiveInt
    kv_bytes_per_token: PositiveInt
    prefill_graph_max_tokens: PositiveInt | None = None
    """SGLang's model-specific limit on prefill graphs, which enters its default of mem_fraction_static."""
    mem_fraction_static: Annotated[float, Field(gt=0, lt=1)] | None = None
    """None: SGLang's default for the GPU and the settings."""


class Provenance(_Part):
    """Who measured what, with what, and how the coefficients came from it."""

    model: str
    gpu: str
    engine: str
    engine_version: str
    measured_by: str
    source: str
    licence: str
    method: str
    date: str | None
    """Of the measurement, ISO 8601; None where the source does not say."""
    notes: tuple[str, ...] = ()
    samples_sha256: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the files of samples, by file name."""


class ValidRange(_Part):
    """The range of the samples: outside it step times are extrapolated."""

    max_batch: PositiveInt
    """Decode rows."""
    max_context_tokens: PositiveInt
    """Context of one decode row."""
    max_prefill_tokens: PositiveInt
    """New tokens of one prefill step."""


class Residual(_Part):
    """How far the model is from the samples, relative to them."""

    samples: PositiveInt
    mape: NonNegative
    """Mean of |model - sample| / sample."""
    max_abs: NonNegative
    """Largest |model - sample| / sample."""


class Residuals(_Part):
    """Of the kernels alone, before overhead_s; None where there was nothing to compare with."""

    decode: Residual | None
    prefill: Residual | None
    mixed: Residual | None
