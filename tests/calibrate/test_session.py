"""A calibration from beginning to end against a fake server, and what is left when it fails in the middle."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.fake_sglang import FakeSglang
from support.fast_forward import run_fast_forward

from calibrate import neighbours
from calibrate.errors import ForeignTrafficError, RefusedError, ServerGoneError
from calibrate.pace import WORK
from calibrate.plan import DECODE_TOKENS, DecodePoint, PrefillPoint, ReportPoint, RidePoint, make_plan
from calibrate.samples import read_samples
from calibrate.server_facts import ServerFacts
from calibrate.session import Calibration, Order, calibrate_server
from simcore.errors import UserError
from simcore.launch import SchedulerSettings
from simcore.profile import ServiceProfile

STEP_S = 0.01
BUDGET_S = 5.0


@pytest.fixture(autouse=True)
def _whatever_else_the_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a server elsewhere: its neighbours are not seen."""
    monkeypatch.setattr(neighbours, "_server_tree", lambda _: [])


def calibrate(
    fake: FakeSglang, folder: Path, *, budget_s: float = BUDGET_S, resume: bool = False, allow_busy: bool = False
) -> Calibration:
    async def run() -> Calibration:
        async with fake.serving() as url:
            order = Order(url, None, budget_s, folder, resume, allow_busy, "fake", None, ("simroute", "calibrate"))
            return await calibrate_server(order, lambda *_: None, lambda _: None)

    return run_fast_forward(run())


def test_it_ends_in_time_with_profile_page_and_samples(tmp_path: Path) -> None:
    fake = FakeSglang()
    done = calibrate(fake, tmp_path)
    profile = ServiceProfile.load("profile.json", tmp_path)
    assert profile == done.built.profile
    measurement = profile.measurement
    assert measurement is not None
    # A tenth is left for the fit.
    assert measurement.duration_s <= 0.9 * BUDGET_S + 0.01
    assert measurement.load_report is not None
    assert profile.valid_range.max_batch == 2
    # What the fake counts of its prefills: 1 ms and 10 us a token.
    assert profile.steps.prefill.per_token_s == pytest.approx(1e-5, rel=0.1)
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["decode.svg", "mixed.svg", "prefill.svg"]
    assert profile.provenance.samples_sha256.keys() == {"samples.jsonl"}
    assert fake.running == 0


@pytest.mark.parametrize(("fault", "error"), [("die", ServerGoneError), ("503", RefusedError)])
def test_a_failure_keeps_the_samples_and_resume_goes_on(tmp_path: Path, fault: str, error: type[UserError]) -> None:
    with pytest.raises(error, match=r"samples are kept in .*samples\.jsonl; go on with --resume"):
        calibrate(FakeSglang(fault=fault, fault_at=40), tmp_path, budget_s=60)
    _, kept = read_samples(tmp_path / "samples.jsonl")
    assert kept
    calibrate(FakeSglang(), tmp_path, resume=True)
    _, samples = read_samples(tmp_path / "samples.jsonl")
    assert samples[: len(kept)] == kept
    assert len(samples) > len(kept)


def test_a_server_that_dies_before_the_first_sample_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerGoneError, match=r"the connection broke|closed the stream"):
        calibrate(FakeSglang(fault="die", fault_at=1), tmp_path)


def test_resume_refuses_samples_of_another_server(tmp_path: Path) -> None:
    with pytest.raises(ServerGoneError):
        calibrate(FakeSglang(fault="die", fault_at=40), tmp_path, budget_s=60)
    with pytest.raises(
        UserError, match="on another server, or in another way: kv_tokens_capacity was 4096, now it is 8192"
    ):
        calibrate(FakeSglang(kv_tokens=8192), tmp_path, resume=True)


def test_resume_refuses_samples_beside_which_other_work_told_the_pace(tmp_path: Path) -> None:
    with pytest.raises(ServerGoneError):
        calibrate(FakeSglang(fault="die", fault_at=40), tmp_path, budget_s=60)
    header, *samples = (tmp_path / "samples.jsonl").read_text().splitlines()
    other = json.dumps({**json.loads(header), "timed_work": WORK - 1})
    (tmp_path / "samples.jsonl").write_text("\n".join([other, *samples]) + "\n")
    with pytest.raises(UserError, match=f"or in another way: timed_work was {WORK - 1}, now it is {WORK}"):
        calibrate(FakeSglang(), tmp_path, resume=True)


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    with pytest.raises(ServerGoneError):
        calibrate(FakeSglang(fault="die", fault_at=40), tmp_path, budget_s=60)
    file = tmp_path / "samples.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"kind": "dec')
    calibrate(FakeSglang(), tmp_path, resume=True)
    lines = file.read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert file.read_text().startswith(whole)


def test_foreign_traffic_is_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(ForeignTrafficError, match=r"1 requests run and 0 wait that are not ours.*--allow-busy"):
        calibrate(FakeSglang(foreign_requests=1), tmp_path)
    done = calibrate(FakeSglang(foreign_requests=1), tmp_path, allow_busy=True)
    assert done.built.verdict.trust != "good"
    assert "other requests were allowed" in done.built.verdict.sentence()


def test_repeated_prompts_in_the_cache_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few samples"):
        calibrate(FakeSglang(cache_hits=64), tmp_path)


def facts(**settings: object) -> ServerFacts:
    own = {"max_running_requests": 16, "cuda_graph_max_batch": 0, "chunked_prefill_size": 2048, **settings}
    return ServerFacts("u", "m", "0.5.23", "cpu", 65_536, 4096, 4089, SchedulerSettings.model_validate(own), True, {})


def test_the_plan_stays_within_the_servers_limits() -> None:
    plan = make_plan(facts(), STEP_S)
    decodes = [point for point in plan.points if isinstance(point, DecodePoint)]
    assert {point.batch for point in decodes} == {1, 2, 3, 4, 8, 16}
    assert all(point.batch * (point.prompt_tokens + point.steps) < 0.9 * 65_536 for point in decodes)
    assert all(len({p.prompt_tokens for p in decodes if p.batch == batch}) > 1 for batch in (1, 16))
    prefills = [point for point in plan.points if isinstance(point, PrefillPoint)]
    assert max(point.new_tokens for point in prefills) < 2048
    assert {point.cached_tokens > 0 for point in prefills} == {True, False}
    assert all(point.batch < 16 for point in plan.points if isinstance(point, RidePoint))
    without = make_plan(facts(radix_cache=False), STEP_S)
    assert not [point for point in without.points if isinstance(point, PrefillPoint) and point.cached_tokens]
    tiny = make_plan(facts(max_running_requests=1), STEP_S)
    assert not [point for point in tiny.points if isinstance(point, RidePoint)]


def test_what_a_fit_needs_comes_first_and_no_kind_is_measured_all_at_once_after_it() -> None:
    points = make_plan(facts(), STEP_S).points
    needed = next(index for index, point in enumerate(points) if isinstance(point, ReportPoint))
    assert not any(isinstance(point, RidePoint) for point in points[:needed])
    decodes = [point for point in points[:needed] if isinstance(point, DecodePoint)]
    assert {point.batch for point in decodes} == {1, 2, 3, 4, 8, 16}
    assert len(decodes) > 6

    rest = points[needed + 1 :]
    third = len(rest) // 3
    for part in (rest[:third], rest[third : 2 * third], rest[2 * third :]):
        assert {type(point) for point in part} == {PrefillPoint, DecodePoint, RidePoint}


def test_a_tiny_pool_is_filled_with_shorter_prompts() -> None:
    plan = make_plan(replace(facts(), kv_tokens_capacity=768), STEP_S)
    decodes = [point for point in plan.points if isinstance(point, DecodePoint)]
    assert {point.batch for point in decodes} == {1, 2, 3, 4, 8, 16}
    rides = [point for point in plan.points if isinstance(point, RidePoint)]
    assert all(point.batch * (point.prompt_tokens + point.steps) < 768 for point in [*decodes, *rides])


def test_decode_prompts_are_as_unequal_as_those_of_an_exponential_distribution() -> None:
    prompts = np.array(DecodePoint(100, 1000, longest_prompt=10_000).prompts())
    assert prompts.mean() == pytest.approx(1000, abs=1)
    assert prompts.std() == pytest.approx(1000, rel=0.07)
    assert np.quantile(prompts, 0.5) == pytest.approx(1000 * np.log(2), rel=0.02)
    assert DecodePoint(1, 64, longest_prompt=4000).prompts() == [64]


def test_no_decode_prompt_is_empty_or_longer_than_the_server_takes() -> None:
    decodes = [point for point in make_plan(facts(), STEP_S).points if isinstance(point, DecodePoint)]
    prompts = [tokens for point in decodes for tokens in point.prompts()]
    assert min(prompts) >= 1
    assert max(point.prompts()[-1] + point.steps for point in decodes) <= 4089
    assert max(prompts) > 3500


def test_answers_are_long_where_they_take_a_moment_and_are_much_of_the_context() -> None:
    def steps(step_s: float, kv_tokens: int = 65_536) -> dict[int, set[int]]:
        plan = make_plan(replace(facts(), kv_tokens_capacity=kv_tokens), step_s)
        found: dict[int, set[int]] = {}
        for point in plan.points:
            if isinstance(point, DecodePoint):
                found.setdefault(point.batch, set()).add(point.steps)
        return found

    assert steps(0.01)[1] == {129, DECODE_TOKENS}
    assert steps(0.02)[1] == {100, DECODE_TOKENS}
    assert steps(0.06)[1] == {DECODE_TOKENS}
    # 16 of 64 tokens and 129 more do not fit into 80% of the pool, of 16 tokens they do.
    assert steps(0.01, kv_tokens=3000)[16] == {150 - 64, 129}
