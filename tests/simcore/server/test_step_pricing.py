"""What a server's steps cost: the right tokens, contexts and batches go into the step-time model.

STEPS: a prefill step takes 8 ms, 50 us for each token above 100, and 1e-8 s for each token attended by a new one; a
decode step 10 ms at batch 1 and 2/7 ms more for each further request up to 8, and about 1 us a token of context.
"""

import pytest
from support.servers import STEPS, Bench, request

from simcore.server.pieces import Pieces


def bench(**settings: object) -> Bench:
    return Bench(**{"overlap": False, **settings})  # type: ignore[arg-type]


def test_a_prefill_step_is_priced_by_its_tokens_and_what_they_attend_to() -> None:
    alone, together = bench(), bench()
    alone.send(request(0, 300, 1))
    together.send(request(0, 300, 1), request(1, 100, 1))
    assert alone.run().first[0] == pytest.approx(0.008 + 200 * 5e-5 + 1e-8 * 300 * 150)
    assert together.run().first[0] == pytest.approx(0.008 + 300 * 5e-5 + 1e-8 * (300 * 150 + 100 * 50))


def test_a_chunk_attends_to_the_chunks_before_it() -> None:
    chunked = bench(chunked_prefill_size=200)
    chunked.send(request(0, 300, 1))
    first_s = 0.008 + 100 * 5e-5 + 1e-8 * 200 * 100
    second_s = 0.008 + 1e-8 * 100 * (200 + 50)
    assert chunked.run().first[0] == pytest.approx(first_s + second_s)


def test_a_cached_prefix_is_attended_to_and_not_computed() -> None:
    caching = bench()
    pieces: Pieces = [(-1, 0, 200)]
    caching.send(request(0, [*pieces, (2, 0, 50)], 1), request(1, [*pieces, (4, 0, 100)], 1, at=1.0))
    assert caching.run().first[1] == pytest.approx(1.0 + 0.008 + 1e-8 * 100 * (200 + 50))


@pytest.mark.parametrize("exact_steps", [False, True])
def test_decode_steps_are_priced_by_batch_and_growing_context(exact_steps: bool) -> None:
    one, two = bench(exact_steps=exact_steps), bench(exact_steps=exact_steps)
    one.send(request(0, 100, 4))
    log = one.run()
    assert log.ended_at[0] - log.first[0] == pytest.approx(3 * 0.010 + 1e-6 * (101 + 102 + 103))
    two.send(request(0, 100, 3), request(1, 50, 4))
    log = two.run()
    base_s, context_s = 0.010 + 0.002 / 7, 1e-6 + 0.1e-6 / 7
    assert log.ended_at[0] - log.first[0] == pytest.approx(2 * base_s + context_s * (152 + 154))
    # The other's last token comes in a step alone.
    assert log.ended_at[1] - log.ended_at[0] == pytest.approx(0.010 + 1e-6 * 53)


@pytest.mark.parametrize(("graphs", "batch", "priced_as"), [(0, 3, 3), (8, 3, 4), (8, 5, 8), (4, 5, 5), (2, 3, 3)])
def test_a_decode_batch_is_padded_to_its_graph_and_runs_as_it_is_above_the_largest(
    graphs: int, batch: int, priced_as: int
) -> None:
    padded = bench(cuda_graph_max_batch=graphs)
    padded.send(*[request(number, 10, 2) for number in range(batch)])
    log = padded.run()
    context_s = 1e-6 + (batch - 1) * 0.1e-6 / 7
    wanted_s = 0.010 + (priced_as - 1) * 0.002 / 7 + context_s * 11 * batch
    assert log.ended_at[0] - log.first[0] == pytest.approx(wanted_s)


def test_a_mixed_step_is_a_prefill_step_with_the_rows_and_their_contexts_added() -> None:
    mixed = bench(mixed_chunk=True, chunked_prefill_size=8192)
    mixed.send(request(0, 100, 2), request(1, 150, 1, at=0.001))
    log = mixed.run()
    assert log.ended_at[0] == log.first[1]
    assert log.first[1] - log.first[0] == pytest.approx(0.008 + 51 * 5e-5 + 1e-8 * 150 * 75 + 1e-6 * 101)


def test_floor_and_overhead_apply_to_each_step() -> None:
    slow = bench(steps=STEPS.model_copy(update={"floor_s": 0.02, "overhead_s": 0.001}))
    slow.send(request(0, 100, 3))
    log = slow.run()
    assert log.first[0] == pytest.approx(0.02 + 1e-8 * 100 * 50 + 0.001)
    assert log.ended_at[0] - log.first[0] == pytest.approx(2 * (0.02 + 0.001) + 1e-6 * (101 + 102))


def test_a_prefill_after_a_retraction_is_priced_with_its_outputs() -> None:
    tight = bench(kv_tokens=200, schedule_conservativeness=0.01, radix_cache=False)
    first, second = request(0, 50, 80), request(1, 40, 80, at=0.001)
    tight.send(first, second)
    log = tight.run()
    assert first.retractions == 1
    # 106 tokens, of which 6 are above the knee; then 23 steps alone, the first with a context of 107.
    prefill_s = 0.008 + 6 * 5e-5 + 1e-8 * 106 * 53
    decode_s = 23 * 0.010 + 1e-6 * (23 * 107 + 23 * 22 / 2)
    assert log.ended_at[0] - log.ended_at[1] == pytest.approx(prefill_s + decode_s)
