"""Runs side by side: rows, labels, findings, tables."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.results import noisy_result

from simcore.compare.loading import labels_of
from simcore.compare.page import findings, sides_page, warnings_of
from simcore.compare.side import Side
from simcore.compare.side_by_side import Row, SideBySide, side_by_side
from simcore.compare.tables import metric_table, run_table
from simcore.metrics import summarise
from simcore.records import RunResult


def side(result: RunResult, label: str = "it", warmup_s: float = 0.0) -> Side:
    return Side.make(label, result, summarise(result, {}, warmup_s))


def rows(compared: SideBySide) -> dict[str, Row]:
    return {row.quantity.name: row for row in compared.rows}


@pytest.fixture(scope="module")
def compared() -> SideBySide:
    made = [side(noisy_result(requests=400, luck=1), "base"), side(noisy_result(requests=400, luck=1), "same")]
    return side_by_side([*made, side(noisy_result(slower=1.5, requests=400, luck=2), "slow")])


def test_a_run_beside_itself_has_no_differences(compared: SideBySide) -> None:
    for row in compared.rows:
        same, _ = row.versus
        assert same.difference.absolute.value == 0
        assert not same.significant
        assert row.values[0] == row.values[1]


def test_a_slower_run_is_told_to_be_slower(compared: SideBySide) -> None:
    row = rows(compared)["mean_e2e_s"]

    assert row.versus[1].significant
    assert row.versus[1].difference.relative.value == pytest.approx(0.5, abs=0.05)
    assert findings(compared)[0].startswith("same: 0 of ")
    assert "slow: " in findings(compared)[1]
    assert "mean E2E 5" in findings(compared)[1]
    assert compared.paired == (True, True)


def test_p_values_are_corrected_for_the_number_of_runs(compared: SideBySide) -> None:
    pair = side_by_side([compared.sides[0], compared.sides[2]])

    alone = rows(pair)["p99_e2e_s"].versus[0]
    among_three = rows(compared)["p99_e2e_s"].versus[1]
    assert alone.p_value == alone.difference.p_value
    assert among_three.p_value == pytest.approx(min(2 * among_three.difference.p_value, 1.0))


def test_json_has_every_metric_of_every_run(compared: SideBySide) -> None:
    document = compared.to_dict()

    assert document["reference"] == "base"
    assert document["same_workload"] == {"same": True, "slow": True}
    (e2e,) = (metric for metric in document["metrics"] if metric["name"] == "mean_e2e_s")  # type: ignore[attr-defined]
    assert set(e2e["values"]) == {"base", "same", "slow"}
    assert e2e["differences"]["same"] == {
        "absolute": {"value": 0.0, "low": 0.0, "high": 0.0},
        "relative": {"value": 0.0, "low": 0.0, "high": 0.0},
        "p_value": 1.0,
        "significant": False,
    }
    (rate,) = (one for one in document["metrics"] if one["name"] == "request_throughput_rps")  # type: ignore[attr-defined]
    assert rate["differences"]["slow"]["p_value"] is None


def test_what_no_run_measured_is_left_out() -> None:
    unknown = noisy_result(requests=50)
    unknown.servers["busy_s"] = np.nan
    names = rows(side_by_side([side(unknown), side(unknown)]))

    assert "utilisation" not in names
    assert "mean_ttft_s" in names


def test_tables(compared: SideBySide) -> None:
    runs, metrics = run_table(compared), metric_table(compared, everything=False)
    cells = {row[0].text: [cell.text for cell in row] for row in metrics.rows}

    assert [row[0].text for row in runs.rows] == ["base", "same", "slow"]
    assert cells["mean E2E"][4:6] == ["0% n.s.", "0 to 0%"]
    assert cells["mean E2E"][7].startswith("+5")
    assert cells["cache hits"][4] == "0 pts n.s."
    assert "p95 E2E" not in cells
    everything = {row[0].text for row in metric_table(compared, everything=True).rows}
    assert {"p95 E2E", "mean server TTFT"} <= everything
    assert len(everything) == len(compared.rows)


def test_the_page_holds_the_runs_and_escapes_them(compared: SideBySide) -> None:
    drawn = {"over-time": "<svg></svg>"}
    named = side_by_side([replace(compared.sides[0], label="<base>"), compared.sides[2]])
    page = sides_page(named, drawn, configs=["name: a", "name: b"], command="simroute compare a b")

    assert "&lt;base&gt;" in page
    assert "<base>" not in page
    assert "simroute compare a b" in page
    assert "# slow\nname: b" in page


def test_what_cannot_be_compared_is_warned_of() -> None:
    ours, theirs = side(noisy_result(requests=50), "a"), side(noisy_result(requests=50), "b", warmup_s=1.0)
    cut = side(noisy_result(requests=50, interrupted=True, warnings=["the generator was late"]), "c")
    found = warnings_of(side_by_side([ours, theirs, cut]))

    assert any("warm-ups of different length (0 s, 1 s)" in warning for warning in found)
    assert "c: interrupted, these are partial results" in found
    assert "c: the generator was late" in found
    assert warnings_of(side_by_side([ours, ours])) == []


def test_labels_say_what_differs() -> None:
    def summary(**fields: object):  # type: ignore[no-untyped-def]
        return summarise(noisy_result(requests=5, **fields), {}, 0.0)

    assert labels_of([summary(policy="a"), summary(policy="b")]) == ["a", "b"]
    assert labels_of([summary(policy="a", kind="live"), summary(policy="a")]) == ["a live", "a sim"]
    assert labels_of([summary(policy="a"), summary(policy="a", seed=3)]) == ["a seed 0", "a seed 3"]
    assert labels_of([summary(), summary(scenario="other")]) == ["random tiny", "random other"]
    assert labels_of([summary(), summary()]) == ["random", "random (2)"]


def test_other_requests_are_not_compared_one_by_one() -> None:
    other = noisy_result(requests=300)
    compared = side_by_side([side(noisy_result(requests=400), "a"), side(other, "b")])

    assert compared.paired == (False,)
    assert any("two independent runs: b" in note for note in metric_table(compared, everything=False).notes)
    assert not math.isnan(rows(compared)["mean_e2e_s"].versus[0].p_value)
