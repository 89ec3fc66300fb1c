"""``mixed_chunk``: decode rows in prefill steps. A prefill or mixed step takes 10 s here and a decode step 1 s."""

import pytest
from support.servers import request, step_bench


@pytest.mark.parametrize(("mixed_chunk", "ends_at"), [(True, 41.0), (False, 44.0)])
def test_running_requests_decode_in_the_steps_of_a_prompt(*, mixed_chunk: bool, ends_at: float) -> None:
    bench = step_bench(mixed_chunk=mixed_chunk, chunked_prefill_size=101)
    bench.send(request(0, 10, 5), request(1, 300, 1, at=10.5))
    log = bench.run()
    # Its second token comes at 11; then three steps of 100 tokens of the other prompt.
    assert log.ended_at == {0: ends_at, 1: 41.0}
    assert bench.server.telemetry.totals.mixed_s == (30.0 if mixed_chunk else 0.0)


def test_each_row_takes_a_token_of_the_chunk() -> None:
    bench = step_bench(mixed_chunk=True, chunked_prefill_size=100)
    bench.send(request(0, 10, 50), request(1, 300, 1, at=10.5))
    # 99 tokens three times, and 3 are left.
    assert bench.run().first[1] == 51.0


def test_a_row_gets_one_token_a_step() -> None:
    bench = step_bench(mixed_chunk=True, chunked_prefill_size=100)
    bench.send(*[request(number, 10, 6, at=9.0 * number) for number in range(4)])
    log = bench.run()
    # Steps end at 10, 20, 30, 40 and then each second: the first has 4 tokens at 40, the last one.
    assert log.ended_at == {0: 42.0, 1: 43.0, 2: 44.0, 3: 45.0}
    assert bench.server.telemetry.totals.decode_tokens == 4 * 5
    assert bench.generated_tokens == 4 * 6


@pytest.mark.parametrize(("max_new", "mixed_s"), [(2, 0.0), (99, 10.0)])
def test_a_row_whose_last_token_is_in_flight_stays_out(max_new: int, mixed_s: float) -> None:
    bench = step_bench(mixed_chunk=True, chunked_prefill_size=100, overlap=True)
    bench.send(request(0, 10, 2, max_new=max_new), request(1, 10, 1, at=5.0))
    log = bench.run()
    # The step formed at 10 follows the one from 10 to 11, in which the first gets its last token.
    assert log.ended_at == {0: 11.0, 1: 21.0}
    assert bench.server.telemetry.totals.mixed_s == mixed_s
