"""``simroute profile``: what it says of good and of doubtful profiles, and of two that differ."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.profiles import calibrated_beside

from simcore.profile import ServiceProfile
from simcore.profile_comparison import compare_profiles, implausibilities
from simcore.profile_measurement import Confidence, Host, Measurement, Pace, Steal
from simcore.step_time import StepTimes
from simroute import main

H100 = ServiceProfile.load("llama-3.1-8b-h100", Path())
CALIBRATED = calibrated_beside(None)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["profile", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_show_names_source_pace_and_limits() -> None:
    shown = run("show", "llama-3.1-8b-h100")
    assert "NVIDIA H100" in shown
    assert f"{H100.kv_tokens_capacity} tokens" in shown
    assert "decode residual" in shown
    assert json.loads(run("show", "llama-3.1-8b-h100", "--json")) == json.loads(H100.to_json())


def test_a_remote_api_is_shown_with_its_price_and_limits() -> None:
    shown = run("show", "hosted-llama-3.1-8b")
    assert "after 0.6 s, varying by 30%" in shown
    assert "0.1 in, 0.2 out" in shown
    assert "600 requests a minute, 1,000,000 tokens a minute" in shown
    assert "valid" in run("check", "hosted-llama-3.1-8b")
    done = CliRunner().invoke(main, ["profile", "diff", "hosted-llama-3.1-8b", "llama-3.1-8b-h100"])
    assert done.exit_code == 2
    assert "no step times to compare" in done.output


def test_check_warns_of_what_is_extrapolated() -> None:
    assert "warning: max_running_requests is 2048, batches were measured up to" in run("check", "llama-3.1-8b-h100")
    done = CliRunner().invoke(main, ["profile", "check", "nothing.json"])
    assert done.exit_code == 2
    assert "cannot be read" in done.output


def test_a_doubtful_calibration_is_told() -> None:
    bad = Measurement(
        machine="a laptop",
        server_args={},
        started_at="2026-01-01T00:00:00+00:00",
        duration_s=60.0,
        samples=100,
        held_back=H100.residuals,
        confidence=Confidence(decode=0.1, prefill=0.1, mixed=None),
        server_clock_ratio=None,
        load_report=None,
        verdict="do not trust",
        reasons=("it was a bad day",),
    )
    (doubt, *_) = implausibilities(H100.model_copy(update={"measurement": bad}))
    assert doubt == "its calibration said: do not trust, because it was a bad day"


def test_diff_finds_the_planted_difference(tmp_path: Path) -> None:
    decode = H100.steps.decode
    slower = decode.model_copy(
        update={name: tuple(1.1 * value for value in getattr(decode, name)) for name in ("base_s", "context_s")}
    )
    steps = H100.steps.model_copy(update={"decode": slower, "overhead_s": 0.0})
    first = H100.model_copy(update={"steps": H100.steps.model_copy(update={"overhead_s": 0.0})})
    second = H100.model_copy(update={"steps": steps, "kv_tokens_capacity": 99_999})
    difference = compare_profiles(first, second)
    assert [term.term for term in difference.terms] == ["decode step", "prefill step", "TTFT at idle"]
    assert difference.terms[0].mean == pytest.approx(0.1)
    assert difference.terms[0].max_abs == pytest.approx(0.1)
    assert difference.terms[1].max_abs == 0.0
    assert difference.fields == (("kv_tokens_capacity", H100.kv_tokens_capacity, 99_999),)
    (tmp_path / "a.json").write_text(second.to_json())
    shown = run("diff", "llama-3.1-8b-h100", str(tmp_path / "a.json"))
    assert "prefill step" in shown
    assert f"{H100.kv_tokens_capacity} -> 99999" in shown


def test_diff_is_on_the_same_machine(tmp_path: Path) -> None:
    def beside(mean: float, work_s: float, of_decode: float, of_prefill: float) -> ServiceProfile:
        """Of the same server: a step takes twice its share longer, and half or a quarter as much as the timed work."""
        assert CALIBRATED.measurement is not None
        pace = Pace(work_s=work_s, work=2, decode_cost=0.5, prefill_cost=0.25)
        measurement = CALIBRATED.measurement.model_copy(
            update={"host": Host(steal=Steal(mean=mean, cost=2.0), pace=pace)}
        )
        decode, prefill = CALIBRATED.steps.decode, CALIBRATED.steps.prefill
        steps = CALIBRATED.steps.model_copy(
            update={
                "decode": decode.model_copy(
                    update={
                        name: tuple(of_decode * value for value in getattr(decode, name))
                        for name in ("base_s", "context_s")
                    }
                ),
                "prefill": prefill.model_copy(
                    update={
                        name: of_prefill * getattr(prefill, name)
                        for name in ("base_s", "below_knee_s", "per_token_s", "per_attended_s")
                    }
                ),
            }
        )
        return CALIBRATED.model_copy(update={"steps": steps, "measurement": measurement})

    first, second = beside(0.01, 0.001, 1.02, 1.02), beside(0.1, 0.00121, 1.1 * 1.2, 1.1**0.5 * 1.2)
    difference = compare_profiles(first, second)
    assert difference.stolen == (0.01, 0.1)
    assert difference.work_s == (0.001, 0.00121)
    assert [term.max_abs for term in difference.terms[:2]] == pytest.approx([0.0, 0.0], abs=1e-9)
    (tmp_path / "a.json").write_text(first.to_json())
    (tmp_path / "b.json").write_text(second.to_json())
    said = run("diff", str(tmp_path / "a.json"), str(tmp_path / "b.json"))
    assert "both beside 1.0% of stolen time; the second was measured beside 10.0%" in said
    assert "both at the pace of the first; the same work took 21.0% longer beside the second" in said
    shown = run("show", str(tmp_path / "b.json"))
    costs = "decode steps take 0.50% longer, prefill steps 0.25% with each percent that it takes longer"
    assert f"timed work took 1.21 ms; {costs}" in shown
    assert "10.0% of the processor time; steps take 2.00% longer with each percent" in shown
    # Times of other work say nothing of these.
    assert second.host is not None
    assert second.host.pace is not None
    other = second.host.model_copy(update={"pace": second.host.pace.model_copy(update={"work": 1})})
    assert second.measurement is not None
    told_by_other = second.model_copy(update={"measurement": second.measurement.model_copy(update={"host": other})})
    unlike = compare_profiles(first, told_by_other)
    assert unlike.work_s is None
    assert unlike.terms[0].mean == pytest.approx(0.1)
    # What only one of them tells is no difference of theirs.
    untold = compare_profiles(CALIBRATED, second)
    assert untold.stolen is None
    assert untold.work_s is None
    assert untold.terms[0].mean == pytest.approx(0.32)


def test_diff_tells_what_a_doubled_overhead_weighs_in_the_first_token() -> None:
    overheads = H100.requests
    doubled = overheads.model_copy(update={name: 2 * value for name, value in overheads})
    difference = compare_profiles(H100, H100.model_copy(update={"requests": doubled}))
    found = {term.term: term for term in difference.terms}
    assert found["prefill step"].max_abs == 0.0
    step_s = StepTimes(H100.steps, H100.settings).prefill_s(1, 0.5)
    around_s = overheads.ingress_s + overheads.egress_s + overheads.ingress_per_prompt_token_s
    # The shortest prompt's first token is the one in which it weighs most.
    assert found["TTFT at idle"].max_abs == pytest.approx(around_s / (around_s + step_s))
