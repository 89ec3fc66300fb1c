import io

import pytest
from rich.console import Console
from support.results import make_result, measured, noisy_result

from simcore.report import compare, print_comparison, print_run


def screen(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_says_what_its_times_mean() -> None:
    console = screen(140)
    print_run(console, compare([measured(noisy_result(), {"ttft_s": 0.1}, 5.0)]))
    text = shown(console)

    assert "arrival at the router to first token" in text
    assert "dispatch to last token" in text
    assert "within TTFT 100 ms" in text
    assert "before" in text, "requests of the warm-up are counted apart"


def test_a_comparison_is_ranked_and_explained() -> None:
    console = screen(140)
    runs = [measured(noisy_result(policy="slow", slower=2.0, luck=1)), measured(noisy_result(policy="fast"))]
    print_comparison(console, compare(runs))
    text = shown(console)

    assert text.index("fast") < text.index("slow")
    assert "+100%" in text
    assert "TTFT and E2E from arrival at the router" in text
    assert "slow is 100% slower" in text


@pytest.mark.parametrize("width", [80, 140])
def test_no_number_is_cut(width: int) -> None:
    console = screen(width)
    runs = [measured(noisy_result(policy=policy)) for policy in ("least_outstanding_tokens", "random")]
    comparison = compare(runs)
    print_comparison(console, comparison)
    text = shown(console)

    assert "…" not in text
    assert "least_outstanding_tokens" in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "lost" in text, "the last column"
    assert ("hits" in text) == (width == 140), "what is not essential is left out where it does not fit"


def test_names_are_not_markup() -> None:
    console = screen(140)
    runs = [measured(noisy_result(policy=policy, scenario="[bold]x[/nope]")) for policy in ("[red]a[/red]", "b")]
    print_comparison(console, compare(runs))
    print_run(console, compare(runs[:1]))

    assert "[red]a[/red]" in shown(console)
    assert "[bold]x[/nope]" in shown(console)


def test_warnings_and_interruption_are_shown() -> None:
    console = screen(140)
    print_run(console, compare([measured(noisy_result(warnings=["batch 300 > 256"], interrupted=True))]))

    assert "warning (random, seed 0): batch 300 > 256" in shown(console)
    assert "partial results" in shown(console)


def test_many_servers_are_cut_to_the_busiest() -> None:
    servers = [{"server_id": f"s{number}", "busy_s": number / 10} for number in range(40)]
    console = screen(140)
    row = {"arrived_at": 0.0, "dispatched_at": 0.0, "first_token_at": 1.0, "finished_at": 2.0}
    print_run(console, compare([measured(make_result([row], servers=servers))]))

    assert "The 16 busiest of 40 servers" in shown(console)
    assert "s39" in shown(console)
    assert "s23 " not in shown(console)
