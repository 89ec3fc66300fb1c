"""Models and cost in tables: where there are several, and where there is a price."""

from io import StringIO

import pytest
from rich.console import Console
from support.results import make_result, measured

from simcore.report import MeasuredRun, compare, print_comparison, print_run
from simcore.report.html import comparison_page, run_page
from simcore.report.model_tables import comparison_models, model_tables
from simcore.report.tables import comparison_table, figures, server_table


def a_run(policy: str = "random", *, models: str = "ab", price: float = 36.0, **fields: object) -> MeasuredRun:
    times = {"arrived_at": 0.0, "dispatched_at": 0.0, "first_token_at": 1.0, "finished_at": 2.0}
    rows = [{"server_id": f"s{i}", "model": model, **times} for i, model in enumerate(models)]
    rows.append({"server_id": "s0", "model": models[0], **times, "status": "rejected"})
    servers = [{"server_id": f"s{i}", "model": m, "price_per_hour": price} for i, m in enumerate(models)]
    return measured(make_result(rows, servers=servers, policy=policy, **fields), {"ttft_s": 1.5})


def test_a_row_a_model() -> None:
    (table,) = model_tables([("random", a_run().summary)])
    headings = [column.heading for column in table.columns]
    rows = [dict(zip(headings, [cell.text for cell in row], strict=True)) for row in table.rows]
    assert [row["model"] for row in rows] == ["a", "b"]
    assert [row["requests"] for row in rows] == ["2", "1"]
    assert [row["lost"] for row in rows] == ["50%", "0%"]
    assert [row["SLO met"] for row in rows] == ["50%", "100%"]
    assert [row["mean TTFT, ms"] for row in rows] == ["1,000", "1,000"]
    assert [row["cost"] for row in rows] == ["0.100", "0.100"]
    assert "policy" not in headings, "of one run alone"


def test_one_model_needs_no_table() -> None:
    assert model_tables([("random", a_run(models="a").summary)]) == []
    assert "model" not in [column.heading for column in server_table(a_run(models="a").summary, 9).columns]


def test_several_policies_have_a_row_each_for_a_model() -> None:
    (table,) = comparison_models(compare([a_run(), a_run("round_robin")]))
    names = [(row[0].text, row[1].text) for row in table.rows]
    assert names[:2] in ([("a", "random"), ("a", "round_robin")], [("a", "round_robin"), ("a", "random")])
    assert [model for model, _ in names] == ["a", "a", "b", "b"]


def test_cost_is_shown_where_there_is_a_price() -> None:
    priced, free = a_run().summary, a_run(price=float("nan")).summary
    told = {name: value for name, value, _ in figures(priced)}
    assert told["cost"] == "0.200"
    assert told["per 1,000 requests"] == "100"
    assert "cost" not in {name for name, *_ in figures(free)}
    assert server_table(priced, 9).columns[-1].heading == "cost"
    assert "cost" not in [column.heading for column in server_table(free, 9).columns]


def test_a_comparison_names_the_cheapest() -> None:
    comparison = compare([a_run(), a_run("round_robin", price=72.0)])
    table = comparison_table(comparison)
    place = [column.heading for column in table.columns].index("cost, per 1k req")
    costs = {row[1].text: row[place] for row in table.rows}
    assert costs["random"].text == "100"
    assert costs["random"].strong
    assert costs["round_robin"].text == "200"
    assert not costs["round_robin"].strong
    free = comparison_table(compare([a_run(price=float("nan"))]))
    assert "cost, per 1k req" not in [column.heading for column in free.columns]


@pytest.mark.parametrize("several", [False, True])
def test_terminal_page_and_json_have_both(several: bool) -> None:
    comparison = compare([a_run(), a_run("round_robin")] if several else [a_run()])
    out = StringIO()
    (print_comparison if several else print_run)(Console(file=out, width=200), comparison)
    page = (
        comparison_page(comparison, {}, config="", command="", links=())
        if several
        else run_page(comparison, {}, config="", command="")
    )
    for text in (out.getvalue(), page):
        assert "Models" in text
        assert "cost" in text
    document = comparison.to_dict()
    assert document["policies"][0]["cost"]["per_1k_requests"] == pytest.approx(100.0)  # type: ignore[index]
