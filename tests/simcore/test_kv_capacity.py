"""SGLang's sizing formulas against values computed by hand from its source."""

import pytest

from simcore.kv_capacity import (
    GPUS,
    MODELS,
    decode_graph_buckets,
    default_chunked_prefill_size,
    default_cuda_graph_max_batch,
    default_max_running_requests,
    default_mem_fraction_static,
    kv_tokens_capacity,
    prefill_graph_buckets,
)

GIB = 1024


@pytest.mark.parametrize(
    ("gib", "chunk", "graph", "graph_tp4"),
    [
        (19.9, 2048, 8, 8),
        (20, 4096, 48, 160),
        (34.9, 4096, 48, 160),
        (35, 4096, 32, 160),
        (60, 8192, 256, 512),
        (90, 8192, 256, 512),
        (159.9, 8192, 256, 512),
        (160, 16384, 512, 512),
    ],
)
def test_tiers_by_memory(gib: float, chunk: int, graph: int, graph_tp4: int) -> None:
    assert default_chunked_prefill_size(gib * GIB) == chunk
    assert default_cuda_graph_max_batch(gib * GIB) == graph
    assert default_cuda_graph_max_batch(gib * GIB, tp_size=4) == graph_tp4


def test_a_running_limit_of_the_user_caps_the_graphs() -> None:
    assert default_cuda_graph_max_batch(80 * GIB, max_running_requests=100) == 100
    assert default_cuda_graph_max_batch(80 * GIB, max_running_requests=1000) == 256


def test_decode_buckets() -> None:
    assert decode_graph_buckets(0) == []
    assert decode_graph_buckets(8) == [1, 2, 4, 8]
    assert decode_graph_buckets(32) == [1, 2, 4, 8, 12, 16, 24, 32]
    assert decode_graph_buckets(100)[-3:] == [88, 96, 100]
    buckets = decode_graph_buckets(600)
    assert buckets[buckets.index(256) :][:3] == [256, 272, 288]
    assert buckets[-5:] == [496, 512, 544, 576, 600]


def test_prefill_buckets() -> None:
    assert prefill_graph_buckets(-1) == []
    assert prefill_graph_buckets(64) == [4, 8, 12, 16, 20, 24, 28, 32, 48, 64]
    # 8 to 32, 14 to 256, 8 to 512, 8 to 1024, 12 to 4096, 8 to 8192
    assert len(prefill_graph_buckets(4096)) == 50
    assert len(prefill_graph_buckets(8192)) == 58


@pytest.mark.parametrize(
    ("gpu", "fraction"),
    [
        # reserve 512 + 1.5 * 8192 + 128 + 2 * 256 + 8 * 58 = 13904 MiB
        ("h200-141gb-sxm", 0.903),  # 1 - 13904 / 143771 = 0.90329
        ("h100-80gb-sxm", 0.830),  # 1 - 13904 / 81559 = 0.82952
        ("a100-80gb-sxm", 0.830),  # 1 - 13904 / 81920 = 0.83027
        # reserve 512 + 1.5 * 4096 + 128 + 2 * 32 + 8 * 50 = 7248 MiB
        ("l40s-48gb", 0.843),  # 1 - 7248 / 46068 = 0.84267
        # reserve 512 + 1.5 * 4096 + 128 + 2 * 48 + 8 * 50 = 7280 MiB
        ("rtx-4090-24gb", 0.704),  # 1 - 7280 / 24564 = 0.70363
    ],
)
def test_default_mem_fraction(gpu: str, fraction: float) -> None:
    mib = GPUS[gpu].memory_mib
    assert fraction == default_mem_fraction_static(
        mib,
        chunked_prefill_size=default_chunked_prefill_size(mib),
        max_prefill_tokens=16384,
        cuda_graph_max_batch=default_cuda_graph_max_batch(mib),
    )


def test_mem_fraction_off_the_defaults() -> None:
    def fraction(chunk: int | None, graph: int, limit: int | None = None, tp_size: int = 1) -> float:
        return default_mem_fraction_static(
            100_000,
            chunked_prefill_size=chunk,
            max_prefill_tokens=16384,
            cuda_graph_max_batch=graph,
            prefill_graph_max_tokens=limit,
            tp_size=tp_size,
        )

    assert fraction(512, 0) == 0.898  # 512 + 1.5 * 2048 + 128 + 8 * 30 = 3952, below the floor of 10240
    assert fraction(None, 0) == 0.748  # 512 + 1.5 * 16384 + 128 = 25216, no prefill graphs without chunks
    assert fraction(8192, 256, limit=4096) == 0.862  # 13840: 50 prefill graphs, not 58
    assert fraction(8192, 256, tp_size=8) == 0.852  # 13904 + 7 * 128 = 14800


def test_kv_bytes_and_weights_of_the_models() -> None:
    assert MODELS["llama-2-7b"].kv_bytes_per_token == 512 * 1024
    assert MODELS["llama-3.1-8b"].kv_bytes_per_token == 128 * 1024
    assert MODELS["llama-3.1-8b"].weight_bytes == 16_060_522_496


def test_kv_tokens() -> None:
    # before 90 GiB; weights 15 GiB; slack 90 * 0.2 = 18 GiB; left 57 GiB of 1 MiB a token
    sizes = {"runtime_mib": 10 * GIB, "weight_bytes": 15 * 2**30, "kv_bytes_per_token": 2**20}
    assert kv_tokens_capacity(100 * GIB, mem_fraction_static=0.8, **sizes) == pytest.approx(57 * 1024, abs=1)
    assert kv_tokens_capacity(100 * GIB, mem_fraction_static=0.8, page_size=1000, **sizes) == 58_000
    assert kv_tokens_capacity(100 * GIB, mem_fraction_static=0.1, **sizes) < 0


@pytest.mark.parametrize(
    ("kv_tokens", "context", "running"),
    [
        (400_000, 131_072, 2048),  # 1562, raised
        (800_000, 131_072, 3125),
        (108_000, 4096, 4096),  # 13500, lowered
        (1000, 131_072, 500),  # half the pool
    ],
)
def test_default_running_requests(kv_tokens: int, context: int, running: int) -> None:
    assert default_max_running_requests(kv_tokens, context) == running
