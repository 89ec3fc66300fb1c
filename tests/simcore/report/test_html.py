from html.parser import HTMLParser

import pytest
from support.results import measured, noisy_result

from simcore.report import compare
from simcore.report.html import comparison_page, comparison_plots, run_page, run_plots

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Checker(HTMLParser):
    """Fails on tags that do not match and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href", "action", "data"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert "://" not in page, "the page must not name any address"
    assert "url(http" not in page
    assert "@import" not in page
    return checker


@pytest.fixture(scope="module")
def of_one_run() -> str:
    result = noisy_result(requests=300, scenario=HOSTILE, warnings=[f"beware of {HOSTILE}"])
    alone = compare([measured(result, {"ttft_s": 0.1})])
    drawn = run_plots(result, alone)
    return run_page(alone, drawn, config=f"name: {HOSTILE}", command=f"simroute sim --scenario '{HOSTILE}'")


@pytest.fixture(scope="module")
def of_a_comparison() -> str:
    runs = [
        measured(noisy_result(requests=300, policy=policy, slower=slower, scenario=HOSTILE))
        for policy, slower in {HOSTILE: 2.0, "b": 1.0}.items()
    ]
    comparison = compare(runs)
    links = [("b, seed 0", "b-seed0/report.html")]
    return comparison_page(comparison, comparison_plots(comparison), config="a: 1", command="again", links=links)


def test_run_page_is_one_valid_offline_file(of_one_run: str) -> None:
    checker = check(of_one_run)

    assert all(address.startswith("#") for address in checker.addresses)
    assert {"svg", "table", "style", "pre", "details"} <= checker.tags


def test_comparison_page_links_to_its_runs_only(of_a_comparison: str) -> None:
    checker = check(of_a_comparison)

    assert [address for address in checker.addresses if not address.startswith("#")] == ["b-seed0/report.html"]


def test_hostile_names_are_escaped(of_one_run: str, of_a_comparison: str) -> None:
    for page in (of_one_run, of_a_comparison):
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_run_page_tells_everything(of_one_run: str) -> None:
    for text in (
        "Key figures",
        "Latencies",
        "Servers",
        "Warnings",
        "Run it again",
        "Resolved configuration",
        "goodput",
    ):
        assert text in of_one_run


def test_comparison_page_tells_everything(of_a_comparison: str) -> None:
    for text in ("vs best", "is best", "+100%", "latencies and servers", "Each run by itself", "again"):
        assert text in of_a_comparison


def test_pages_follow_the_readers_theme_and_width(of_one_run: str) -> None:
    assert "prefers-color-scheme: dark" in of_one_run
    assert "width=device-width" in of_one_run
