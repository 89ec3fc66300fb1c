"""The documentation is true: generated parts are up to date, examples run, links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from policies import policy_descriptions
from simcore.engine import simulate
from simcore.scenario import PolicySpec, Scenario, load_scenario

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "results/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = ROOT / "docs/examples"


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def short(scenario: Scenario) -> Scenario:
    workload = scenario.workload.model_copy(update={"duration_s": 20.0})
    return scenario.model_copy(update={"workload": workload, "warmup_s": 0.0})


def test_generated_parts_are_up_to_date():
    """Every command and option, scenario key, policy and column is in them: a new one makes this fail."""
    command = [sys.executable, str(ROOT / "docs/generate.py"), "--check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_output_in_the_docs_was_made():
    for page in PAGES:
        for command, content in re.findall(r"<!-- output: (.+?) -->\n(.*?)<!-- end -->", page.read_text(), re.DOTALL):
            assert content.startswith(f"\n```console\n$ simroute {command}\n"), f"{page.name}: make docs"


@pytest.mark.parametrize("policy", ["least_request", f"{EXAMPLES / 'sticky_sessions.py'}:StickySessions"])
def test_the_example_runs(policy: str):
    scenario = short(load_scenario(str(EXAMPLES / "chat.yaml")))
    result = simulate(scenario, PolicySpec(name=policy), seed=1)
    assert set(result.requests["status"]) == {"finished"}


def test_the_example_policy_keeps_sessions_on_their_server():
    scenario = short(load_scenario(str(EXAMPLES / "chat.yaml")))
    sticky = PolicySpec(name=f"{EXAMPLES / 'sticky_sessions.py'}:StickySessions", params={"patience": 1000})
    requests = simulate(scenario, sticky, seed=1).requests
    assert (requests.groupby("session_id")["server_id"].nunique() == 1).all()


def test_every_policy_has_its_page_and_the_readme_leads_there():
    readme = (ROOT / "README.md").read_text()
    for policy in policy_descriptions():
        assert f"| [`{policy.name}`](docs/policies/{policy.name}.md) |" in readme
        page = (ROOT / f"docs/policies/{policy.name}.md").read_text()
        assert "**When it helps:**" in page
        assert "**When it hurts:**" in page
    assert len(list((ROOT / "docs/policies").glob("*.md"))) == len(policy_descriptions()) + 1, "no others"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_make_targets_exist(page: Path):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", page.read_text())) | set(
        re.findall(r"^make ([a-z]+)", page.read_text(), re.MULTILINE)
    )
    assert named <= targets
