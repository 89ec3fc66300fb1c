"""How SGLang sizes a server: the KV pool in tokens and the defaults that follow from the GPU's memory.

Formulas are those of SGLang 0.5.23 for one GPU without speculation, disaggregation or multimodal input; each names its
place in the ``sglang/srt`` source. Memory is in MiB as nvidia-smi reports it, as there.
"""

from dataclasses import dataclass
from typing import Final

__all__ = [
    "GPUS",
    "MODELS",
    "Gpu",
    "ModelShape",
    "decode_graph_buckets",
    "default_chunked_prefill_size",
    "default_cuda_graph_max_batch",
    "default_max_running_requests",
    "default_mem_fraction_static",
    "kv_tokens_capacity",
    "prefill_graph_buckets",
]

_MIB = 1024 * 1024
_GIB_IN_MIB = 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: its total memory as nvidia-smi reports it and its peak memory bandwidth as the vendor states it."""

    name: str
    memory_mib: int
    bandwidth_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model decides its memory: shapes from its ``config.json``, two bytes a parameter and KV element."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    parameters: int
    context_length: int
    prefill_graph_max_tokens: int | None = None
    """SGLang limits prefill graphs of the Llama 2 series to 4096 tokens (``arg_groups/memory_hook.py``)."""

    @property
    def weight_bytes(self) -> int:
        return 2 * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """``model_executor/pool_configurator.py: _compute_cell_size``: keys and values, two bytes each."""
        return self.kv_heads * 2 * self.head_dim * self.layers * 2


GPUS: Final = {
    "a100-80gb-sxm": Gpu("NVIDIA A100 80GB SXM", 81920, 2.039e12),
    "h100-80gb-sxm": Gpu("NVIDIA H100 80GB SXM", 81559, 3.35e12),
    "h200-141gb-sxm": Gpu("NVIDIA H200 141GB SXM", 143771, 4.8e12),
    "l40s-48gb": Gpu("NVIDIA L40S 48GB", 46068, 0.864e12),
    "rtx-4090-24gb": Gpu("NVIDIA GeForce RTX 4090 24GB", 24564, 1.008e12),
}

MODELS: Final = {
    "llama-2-7b": ModelShape("meta-llama/Llama-2-7b-hf", 32, 32, 128, 6_738_415_616, 4096, 4096),
    "llama-3.1-8b": ModelShape("meta-llama/Llama-3.1-8B", 32, 8, 128, 8_030_261_248, 131_072),
}

# Tiers of GPU memory: (below this many GiB, chunked_prefill_size, largest decode graph for tp < 4, and for tp >= 4).
_TIERS: Final = (
    (20, 2048, 8, 8),
    (35, 4096, 48, 160),
    (60, 4096, 32, 160),
    (90, 8192, 256, 512),
    (160, 8192, 256, 512),
    (float("inf"), 16384, 512, 512),
)


def default_chunked_prefill_size(gpu_memory_mib: float) -> int:
    """Tokens. ``arg_groups/memory_hook.py: _handle_gpu_memory_settings``."""
    return next(chunk for below_gib, chunk, _, _ in _TIERS if gpu_memory_mib < below_gib * _GIB_IN_MIB)


def default_cuda_graph_max_batch(
    gpu_memory_mib: float, max_running_requests: int | None = None, tp_size: int = 1
) -> int:
    """Largest batch of a decode graph; ``max_running_requests`` limits it where the user set that.
    ``arg_groups/memory_hook.py: _handle_gpu_memory_settings``."""
    small, large = next((s, la) for below_gib, _, s, la in _TIERS if gpu_memory_mib < below_gib * _GIB_IN_MIB)
    batch = small if tp_size < 4 else large
    return batch if max_running_requests is None else min(batch, max_running_requests)


def decode_graph_buckets(max_batch: int) -> list[int]:
    """Batches for which a decode graph is captured, in order; ``max_batch`` itself is always one, 0 means none.
    ``arg_groups/cuda_graph_hook.py: generate_decode_cuda_graph_batch_sizes``."""
    if max_batch == 0:
        return []
    regular = [1, 2, 4, 8, 12, *range(16, 257, 8), *range(272, 512, 16), *range(512, max_batch + 1, 32)]
    buckets = [batch for batch in regular if batch <= max_batch]
    return buckets if buckets[-1] == max_batch else [*buckets, max_batch]


def prefill_graph_buckets(max_tokens: int) -> list[int]:
    """Token counts for which a prefill graph is captured.
    ``arg_groups/cuda_graph_hook.py: generate_prefill_cuda_graph_batch_sizes``."""
    regular = [
        *range(4, 33, 4),
        *range(48, 257, 16),
        *range(288, 513, 32),
        *range(576, 1025, 64),
        *range(1280, 4097, 256),
        *range(4608, max_tokens + 1, 512),
    ]
    return [tokens for tokens in regular if tokens <= max_tokens]


def default_mem_fraction_static(
    gpu_memory_mib: float,
    *,
    chunked_prefill_size: int | None,
    max_prefill_tokens: int,
    cuda_graph_max_batch: int,
    prefill_graph_max_tokens: int | None = None,
    tp_size: int = 1,
) -> float:
    """Share of the memory for weights and KV pool, to three digits: what a reserve leaves.

    The reserve is 512 MiB, 1.5 a token of a chunk (of a whole prefill when chunking is off), 128 a GPU, 2 a row of the
    largest decode graph and 8 a prefill graph; at least 10 GiB on GPUs above 60 GiB. Without chunking SGLang captures
    no prefill graph, as their largest size is -1. ``arg_groups/memory_hook.py: _handle_gpu_memory_settings``,
    ``reserve_for_graph_mb``.
    """
    reserve = 512 + 1.5 * max(chunked_prefill_size or max_prefill_tokens, 2048) + tp_size / 8 * 1024
    reserve += 2 * cuda_graph_max_batch
    if chunked_prefill_size is not None:
        largest = min(chunked_prefill_size, prefill_graph_max_tokens or chunked_prefill_size)
        reserve += 8 * len(prefill_graph_buckets(largest))
    if gpu_memory_mib > 60 * _GIB_IN_MIB:
        reserve = max(reserve, 10 * _GIB_IN_MIB)
    return round((gpu_memory_mib - reserve) / gpu_memory_mib, 3)


def kv_tokens_capacity(
    gpu_memory_mib: float,
    *,
    runtime_mib: float,
    weight_bytes: int,
    kv_bytes_per_token: int,
    mem_fraction_static: float,
    page_size: int = 1,
) -> int:
    """Tokens of the KV pool, whole pages: what is free after loading less ``1 - mem_fraction_static`` of what was free
    before, over the bytes of a token. Zero or less when the weights do not fit.
    ``mem_cache/kv_cache_configurator.py: _profile_available_bytes``, ``pool_configurator.py: calculate_pool_sizes``."""
    before = (gpu_memory_mib - runtime_mib) * _MIB
    available = int(before - weight_bytes - before * (1 - mem_fraction_static))
    return available // kv_bytes_per_token // page_size * page_size


def default_max_running_requests(kv_tokens: int, context_length: int) -> int:
    """``mem_cache/kv_cache_configurator.py: resolve_max_num_reqs``."""
    return min(max(min(int(kv_tokens / context_length * 512), 4096), 2048), kv_tokens // 2)
