"""The report page as a browser shows it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cli import sim, tiny

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

SCRIPT = """<script>
addEventListener("load", () => document.body.dataset.found = JSON.stringify({
    wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    empty: [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().height < 50).length,
    plots: document.querySelectorAll("svg").length,
    ink: getComputedStyle(document.body).color,
}));
</script></body>"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of a comparison and of a run in it."""
    folder = tmp_path_factory.mktemp("report")
    assert sim("--scenario", tiny(folder), "--out", str(folder / "out")).exit_code == 0
    (comparison,) = (folder / "out").iterdir()
    return {"comparison": comparison / "report.html", "run": comparison / "random-seed0/report.html"}


def found(page: Path, folder: Path, *, width: int, dark: bool = False) -> str:
    """What a script in a copy of the page sees, and what the browser complains of."""
    copy = folder / "page.html"
    copy.write_text(page.read_text().replace("</body>", SCRIPT))
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    words += [f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--log-level=0", "--dump-dom"]
    words += ["--blink-settings=preferredColorScheme=0"] * dark
    done = subprocess.run([*words, copy.as_uri()], capture_output=True, text=True, check=True, timeout=60)
    assert "CONSOLE" not in done.stderr, done.stderr
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match is not None
    return match[1].replace("&quot;", '"')


@pytest.mark.parametrize("width", [1400, 500])
@pytest.mark.parametrize("name", ["comparison", "run"])
def test_it_fits_the_window_and_draws_its_plots(pages: dict[str, Path], tmp_path: Path, name: str, width: int) -> None:
    """Tables and wide plots scroll by themselves; the page does not."""
    plots = {"comparison": 4, "run": 5}[name]

    assert f'"wider":0,"empty":0,"plots":{plots}' in found(pages[name], tmp_path, width=width)


def test_it_follows_the_readers_theme(pages: dict[str, Path], tmp_path: Path) -> None:
    assert '"ink":"rgb(28, 33, 40)"' in found(pages["run"], tmp_path, width=1000)
    assert '"ink":"rgb(227, 231, 236)"' in found(pages["run"], tmp_path, width=1000, dark=True)
