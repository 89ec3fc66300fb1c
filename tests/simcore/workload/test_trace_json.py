import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcore.errors import UserError
from simcore.workload import Workload

Build = Callable[..., Workload]

CALLS: list[dict[str, Any]] = [
    {"timestamp": 1000, "input_length": 1200, "output_length": 500, "hash_ids": [0, 1, 2]},
    {"timestamp": 1000, "input_length": 1024, "output_length": 3, "hash_ids": [0, 1]},
    {"timestamp": 4500, "input_length": 1300, "output_length": 20, "hash_ids": [0, 3, 4]},
    {"timestamp": 9000, "input_length": 300, "output_length": 7, "hash_ids": [5]},
]
CLOSED = {"kind": "closed_loop", "max_concurrency": 8}
MOONCAKE = {"kind": "mooncake", "path": "trace.jsonl"}
SHAREGPT = {"kind": "sharegpt", "path": "chats.json", "shuffle": False}


def write_calls(folder: Path, calls: list[Any]) -> None:
    (folder / "trace.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))


def write_chats(folder: Path, *chats: list[Any]) -> None:
    entries = [{"id": str(k), "conversations": turns} for k, turns in enumerate(chats)]
    (folder / "chats.json").write_text(json.dumps(entries))


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"from": "human", "value": text} | more


def infinite_cache_hits(workload: Workload) -> float:
    """The share of prompt tokens whose whole prefix some earlier prompt had."""
    segments = workload.segments
    assert segments is not None
    seen: set[int] = set()
    hits = 0
    for request in range(len(workload)):
        runs = slice(segments.offsets[request], segments.offsets[request + 1])
        ids, tokens = segments.ids[runs].tolist(), segments.tokens[runs].tolist()
        known = next((k for k, segment in enumerate(ids) if segment not in seen), len(ids))
        hits += sum(tokens[:known])
        seen.update(ids)
    return hits / int(workload.prompt_tokens.sum())


def test_mooncake_blocks_become_shared_segments(build: Build, tmp_path: Path) -> None:
    write_calls(tmp_path, CALLS)
    workload = build(trace=MOONCAKE)
    assert workload.arrival_s.tolist() == [0, 0, 3.5, 8]
    assert workload.prompt_tokens.tolist() == [1200, 1024, 1300, 300]
    assert workload.output_tokens.tolist() == [500, 3, 20, 7]
    assert workload.segments is not None
    assert workload.segments.offsets.tolist() == [0, 3, 5, 8, 9]
    assert workload.segments.ids.tolist() == [-1, -2, -3, -1, -2, -1, -4, -5, -6]
    assert workload.segments.tokens.tolist() == [512, 512, 176, 512, 512, 512, 512, 276, 300]


def test_mooncake_prompts_hit_what_earlier_ones_left(build: Build, tmp_path: Path) -> None:
    write_calls(tmp_path, CALLS)
    assert infinite_cache_hits(build(trace=MOONCAKE)) == pytest.approx((1024 + 512) / (1200 + 1024 + 1300 + 300))


def test_mooncake_takes_rate_scale_limit_and_block_size(build: Build, tmp_path: Path) -> None:
    write_calls(tmp_path, [call | {"input_length": 16 * len(call["hash_ids"])} for call in CALLS])
    workload = build(trace=MOONCAKE | {"rate_scale": 10, "limit": 3, "block_tokens": 16})
    assert workload.arrival_s.tolist() == [0, 0, 0.35]
    assert set(workload.segments.tokens.tolist() if workload.segments else []) == {16}


def test_mooncake_is_put_in_order_of_time(build: Build, tmp_path: Path) -> None:
    write_calls(tmp_path, CALLS[::-1])
    workload = build(trace=MOONCAKE)
    assert workload.arrival_s.tolist() == [0, 0, 3.5, 8]
    assert workload.segments is not None
    np.testing.assert_array_equal(
        np.add.reduceat(workload.segments.tokens, workload.segments.offsets[:-1]), workload.prompt_tokens
    )


def test_mooncake_skips_what_generated_nothing(build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_calls(tmp_path, [CALLS[0], CALLS[1] | {"output_length": 0}, CALLS[3]])
    with caplog.at_level(logging.WARNING):
        workload = build(trace=MOONCAKE)
    assert workload.prompt_tokens.tolist() == [1200, 300]
    assert "1 of the trace's requests skipped" in caplog.text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"timestamp": "now"}, ":2: column 'timestamp': 'now' is not a time in milliseconds"),
        ({"timestamp": float("nan")}, ":2: column 'timestamp': nan is not a time"),
        ({"input_length": 10.5}, ":2: column 'input_length': 10.5 is not a whole number of tokens"),
        ({"output_length": -1}, ":2: column 'output_length': -1 is not a whole number of tokens"),
        ({"hash_ids": [0, "x"]}, ":2: column 'hash_ids': is not a list of whole numbers"),
        ({"hash_ids": [0, -1]}, ":2: column 'hash_ids': is not a list of whole numbers"),
        ({"hash_ids": [0, 2**63]}, ":2: column 'hash_ids': is not a list of whole numbers"),
        ({"hash_ids": [0]}, ":2: column 'hash_ids': 1 blocks of 512 tokens do not make a prompt of 1024"),
    ],
)
def test_a_malformed_mooncake_line_is_one_message(
    build: Build, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    write_calls(tmp_path, [CALLS[0], CALLS[1] | change])
    with pytest.raises(UserError) as caught:
        build(trace=MOONCAKE)
    assert f"trace.jsonl{complaint}" in str(caught.value)
    assert "kvcache-ai/Mooncake" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"timestamp": 3', ":2: not JSON: Expecting ',' delimiter at character 16"),
        ("[1]", ":2: not a JSON object"),
        ('{"timestamp": 3}', ":2: column 'input_length': missing"),
    ],
)
def test_a_line_that_is_no_call_is_one_message(build: Build, tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "trace.jsonl").write_text(f"{json.dumps(CALLS[0])}\n{line}\n")
    with pytest.raises(UserError) as caught:
        build(trace=MOONCAKE)
    assert f"trace.jsonl{complaint}" in str(caught.value)


def test_sharegpt_lengths_are_counted_where_given_and_estimated_where_not(build: Build, tmp_path: Path) -> None:
    write_chats(
        tmp_path,
        [said("x" * 9), said("y" * 400), said("more"), said("more")],
        [said("x" * 9, tokens=5), said("y" * 400, tokens=77)],
    )
    workload = build(arrivals=CLOSED, trace=SHAREGPT)
    assert workload.prompt_tokens.tolist() == [3, 5]
    assert workload.output_tokens.tolist() == [100, 77]
    finer = build(arrivals=CLOSED, trace=SHAREGPT | {"chars_per_token": 2})
    assert finer.prompt_tokens.tolist() == [5, 5]


def test_sharegpt_skips_what_bench_serving_skips(
    build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = said("x" * 40)
    write_chats(tmp_path, [long], [long, said("")], [said("hi"), long], [long, long], [])
    with caplog.at_level(logging.WARNING):
        workload = build(arrivals=CLOSED, trace=SHAREGPT)
    assert len(workload) == 1
    assert "4 of the trace's requests skipped" in caplog.text


def test_sharegpt_is_shuffled_by_the_seed(build: Build, tmp_path: Path) -> None:
    write_chats(tmp_path, *([said("", tokens=k), said("", tokens=1000 + k)] for k in range(2, 42)))
    trace = SHAREGPT | {"shuffle": True}
    one, again = (build(seed=1, arrivals=CLOSED, trace=trace) for _ in range(2))
    other = build(seed=2, arrivals=CLOSED, trace=trace)
    assert one.prompt_tokens.tolist() == again.prompt_tokens.tolist() != other.prompt_tokens.tolist()
    assert sorted(one.prompt_tokens) == list(range(2, 42))
    np.testing.assert_array_equal(one.output_tokens, one.prompt_tokens + 1000)
    assert len(build(arrivals=CLOSED, trace=trace | {"limit": 5})) == 5


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[\n{"a" 1}]', ":2: not JSON: Expecting ':' delimiter at character 6"),
        ("{}", ": not a JSON array of conversations"),
        ('[{"id": "a"}]', ": column 'conversations': entry 0 has no list of turns"),
        ('[{"conversations": [{"value": 3}, 1]}]', ": column 'value': entry 0, turn 0 has no text"),
        (
            '[{"conversations": [{"value": "a", "tokens": 1.5}]}]',
            ": column 'tokens': entry 0, turn 0: 1.5 is not a whole number of tokens",
        ),
        ("[]", ": no request to replay (0 skipped)"),
    ],
)
def test_a_malformed_sharegpt_file_is_one_message(build: Build, tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "chats.json").write_text(text)
    with pytest.raises(UserError) as caught:
        build(arrivals=CLOSED, trace=SHAREGPT)
    assert f"chats.json{complaint}" in str(caught.value)
    assert "ShareGPT_Vicuna_unfiltered" in str(caught.value)


def test_bytes_that_are_no_text_are_one_message(build: Build, tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        build(trace=MOONCAKE)
