import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from support.results import make_result, measured, noisy_result

from simcore.records import RunResult
from simcore.report import compare
from simcore.report.html import comparison_plots, run_plots
from simcore.report.plots import MAX_POINTS, latency_cdf, thinned


def many_servers(count: int) -> RunResult:
    row = {"arrived_at": 0.0, "dispatched_at": 0.0, "first_token_at": 1.0, "finished_at": 2.0}
    return make_result([row], servers=[{"server_id": f"s{number}"} for number in range(count)])


def test_plots_are_the_same_bytes_again() -> None:
    def draw() -> dict[str, str]:
        result = noisy_result(requests=200)
        return run_plots(result, compare([measured(result, {"ttft_s": 0.1})]))

    assert draw() == draw()


def test_plots_are_well_formed_and_carry_no_date() -> None:
    runs = [measured(noisy_result(policy=policy, luck=luck, requests=200)) for luck, policy in enumerate("ab")]
    for name, svg in comparison_plots(compare(runs)).items():
        assert ET.fromstring(svg).tag.endswith("svg"), name
        assert "metadata" not in svg
        assert not re.search(r"20\d\d-\d\d-\d\d", svg)
        assert "#010203" not in svg
        assert "currentColor" in svg


def test_ids_of_one_page_are_unique() -> None:
    result = noisy_result(requests=200)
    ids = [
        found
        for svg in run_plots(result, compare([measured(result)])).values()
        for found in re.findall(r'\bid="([^"]*)"', svg)
    ]

    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("servers", [8, 40])
def test_any_number_of_servers_can_be_drawn(servers: int) -> None:
    result = many_servers(servers)
    drawn = run_plots(result, compare([measured(result)]))

    assert ("mean of" in drawn["timeline"]) == (servers > 8)
    assert ("s0" in drawn["server-load"]) == (servers <= 32)


def test_a_run_without_finished_requests_or_samples_can_be_drawn() -> None:
    result = make_result([{"arrived_at": 1.0, "status": "rejected"}], duration_s=0.0)
    drawn = run_plots(result, compare([measured(result, {"ttft_s": 1.0})]))

    assert "timeline" not in drawn
    assert set(comparison_plots(compare([measured(result)]))) == {"ranking", "cdf-ttft", "cdf-tpot", "cdf-e2e"}


def test_a_limit_without_samples_can_be_drawn() -> None:
    assert "<svg" in latency_cdf("ttft_s", {"a": np.array([])}, None)
    assert "<svg" in latency_cdf("ttft_s", {"a": np.array([]), "b": np.array([np.nan])}, None)


def test_names_with_dollars_and_brackets_are_names() -> None:
    svg = latency_cdf("ttft_s", {"a$b$<c>": np.array([0.1, 0.2]), "other": np.array([0.3])}, None)

    assert "a$b$&lt;c&gt;" in svg


def test_thinned_keeps_the_ends() -> None:
    values = np.random.default_rng(0).exponential(size=100_000)
    at, share = thinned(values)

    assert at.size == MAX_POINTS
    assert (at[0], at[-1]) == (values.min(), values.max())
    assert share[-1] == 1.0
    assert np.interp(np.median(values), at, share) == pytest.approx(0.5, abs=0.01)


def test_thinned_leaves_a_small_sample_alone() -> None:
    at, share = thinned(np.array([3.0, 1.0]))

    assert at.tolist() == [1.0, 3.0]
    assert share.tolist() == [0.5, 1.0]


def test_plots_do_not_depend_on_or_change_matplotlibs_settings() -> None:
    values = {"a": np.linspace(0.01, 1, 50)}
    plain = latency_cdf("ttft_s", values, None)
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert latency_cdf("ttft_s", values, None) == plain
        assert mpl.rcParams["font.size"] == 30
