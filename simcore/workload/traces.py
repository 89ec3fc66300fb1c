"""The ``trace:`` section: which traces can be replayed, and the one way to read any of them."""

import logging
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from .section import Count, Positive, Section
from .trace_csv import AZURE, BURSTGPT, read_csv
from .trace_file import Trace, TraceFile
from .trace_json import read_mooncake, read_sharegpt

__all__ = ["AzureTrace", "BurstGptTrace", "MooncakeTrace", "ShareGptTrace", "TraceSpec", "read_trace"]

_log = logging.getLogger(__name__)


class _AnyTrace(Section):
    path: str
    limit: Count | None = None


class _TimedTrace(_AnyTrace):
    rate_scale: Positive = 1.0


class AzureTrace(_TimedTrace):
    """Azure's LLM inference traces of 2023 and 2024 (csv: TIMESTAMP, ContextTokens, GeneratedTokens)."""

    kind: Literal["azure-2023", "azure-2024"]


class BurstGptTrace(_TimedTrace):
    """BurstGPT (csv: Timestamp in seconds, Request tokens, Response tokens; no response tokens means it failed).

    models    the column Model's names, each with the model that is asked for here; not given: the column is not read.
    """

    kind: Literal["burstgpt"] = "burstgpt"
    models: Annotated[dict[str, Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None


class MooncakeTrace(_TimedTrace):
    """Mooncake (JSON lines: timestamp in ms, input_length, output_length, hash_ids of ``block_tokens`` tokens each).

    Equal hash ids become shared content, the last block of a prompt being as long as what is left of it.
    """

    kind: Literal["mooncake"] = "mooncake"
    block_tokens: Count = 512


class ShareGptTrace(_AnyTrace):
    """ShareGPT (a JSON array of conversations), as sglang.bench_serving reads it; it has no times.

    The first two turns are the prompt and the answer; conversations with fewer, or with less than two tokens in either,
    are skipped. ``shuffle`` puts them in an order drawn with the seed. A turn's ``tokens`` (a whole number) is its
    length where the file has it. Otherwise it is estimated as characters / ``chars_per_token``, rounded up, for a real
    count depends on the model's tokenizer; 4 is about right for English.
    """

    kind: Literal["sharegpt"] = "sharegpt"
    chars_per_token: Positive = 4.0
    shuffle: bool = True


TraceSpec = Annotated[
    AzureTrace | BurstGptTrace | MooncakeTrace | ShareGptTrace,
    Field(discriminator="kind"),
]

_AZURE_REPOSITORY = "the repository Azure/AzurePublicDataset"
_ORIGINS = {
    "azure-2023": f"{_AZURE_REPOSITORY} (AzureLLMInferenceTrace_conv.csv, AzureLLMInferenceTrace_code.csv)",
    "azure-2024": f"{_AZURE_REPOSITORY} (AzureLLMInferenceTrace_conv_1week.csv, AzureLLMInferenceTrace_code_1week.csv)",
    "burstgpt": "the repository HPMLL/BurstGPT (data/BurstGPT_1.csv)",
    "mooncake": "the repository kvcache-ai/Mooncake (FAST25-release/traces)",
    "sharegpt": "the data set anon8231489123/ShareGPT_Vicuna_unfiltered (ShareGPT_V3_unfiltered_cleaned_split.json)",
}


def read_trace(spec: TraceSpec, rng: np.random.Generator, *, base_dir: Path) -> Trace:
    """Read the first ``limit`` requests that can be replayed, their times divided by ``rate_scale``.

    Entries without a prompt or an answer cannot be; they are skipped, counted and logged. Raises UserError where the
    file is missing or malformed, or nothing is left of it. ``rng`` is for the order of a trace without times.
    """
    file = TraceFile.find(spec.path, base_dir, _ORIGINS[spec.kind])
    match spec:
        case AzureTrace():
            trace = read_csv(file, AZURE, limit=spec.limit, rate_scale=spec.rate_scale)
        case BurstGptTrace():
            trace = read_csv(file, BURSTGPT, limit=spec.limit, rate_scale=spec.rate_scale, models=spec.models)
        case MooncakeTrace():
            trace = read_mooncake(file, spec.block_tokens, limit=spec.limit, rate_scale=spec.rate_scale)
        case ShareGptTrace():
            order = rng if spec.shuffle else None
            trace = read_sharegpt(file, spec.chars_per_token, limit=spec.limit, order=order)
    if len(trace.prompt_tokens) == 0:
        raise file.error(f"no request to replay ({trace.skipped} skipped)")
    if trace.skipped:
        _log.warning("%s: %d of the trace's requests skipped: %s", file.path, trace.skipped, trace.skipped_why)
    return trace
