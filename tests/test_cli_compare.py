"""``simroute compare`` on run folders."""

import json
from pathlib import Path

import pytest
from support.cli import invoke, sim, tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of two policies, and two runs of the first with another seed."""
    folder = tmp_path_factory.mktemp("runs")
    scenario = ("--scenario", tiny(folder))
    sim(*scenario, "--out", str(folder / "both"))
    for name in ("again", "yet-again"):
        sim(*scenario, "--policy", "random", "--seed", "4", "--out", str(folder / name))
    return folder


def one(folder: Path) -> str:
    (run,) = folder.iterdir()
    return str(run)


def test_a_run_compared_with_its_like_gives_zeros(runs: Path) -> None:
    result = invoke("compare", one(runs / "again"), one(runs / "yet-again"), "--json", "--no-out")
    document = json.loads(result.stdout)

    assert document["reference"] == "random"
    assert document["same_workload"] == {"random (2)": True}
    for metric in document["metrics"]:
        difference = metric["differences"]["random (2)"]
        assert difference["absolute"]["value"] == 0, metric["name"]
        assert difference["significant"] is False


def test_a_comparison_stands_for_its_runs(runs: Path) -> None:
    out = runs / "out"
    result = invoke("compare", one(runs / "both"), "--out", str(out))

    assert result.exit_code == 0, result.stderr
    assert "least_request" in result.stdout
    assert "random: " in result.stdout
    (folder,) = out.iterdir()
    assert {path.name for path in folder.iterdir()} == {"compare.json", "report.html", "plots"}
    assert {path.name for path in (folder / "plots").iterdir()} == {
        *(f"cdf-{name}.svg" for name in ("ttft", "tpot", "e2e", "router-wait")),
        "over-time.svg",
    }
    assert f"simroute compare {one(runs / 'both')}" in (folder / "report.html").read_text()


def test_other_seeds_are_told_apart_and_not_paired(runs: Path) -> None:
    both = sorted((runs / "both").glob("*/random*"))
    result = invoke("compare", str(both[0]), one(runs / "again"), "--json", "--no-out")
    document = json.loads(result.stdout)

    assert document["reference"] == "random seed 0"
    assert document["same_workload"] == {"random seed 4": False}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the folders of two runs or more"),
        (("again",), "is one run: give two or more"),
        (("again", "nowhere"), "is not a run folder: summary.json is missing"),
        (("again", "yet-again", "again"), "is given twice"),
    ],
)
def test_what_cannot_be_compared(runs: Path, arguments: tuple[str, ...], message: str) -> None:
    paths = [one(runs / name) if (runs / name).exists() else str(runs / name) for name in arguments]
    result = invoke("compare", *paths, "--no-out")

    assert result.exit_code == 2
    assert message in result.stderr
