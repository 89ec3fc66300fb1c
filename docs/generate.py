"""Writes what is generated in README.md and docs/*.md: ``make docs`` (``--check``: says whether it is up to date).

A generated part stands between a comment and ``<!-- end -->``; what is around it is written by hand. The comments are

    <!-- generated: NAME -->       a table made from the code (reference_parts.py)
    <!-- file: PATH -->            a file of the repository
    <!-- output: ARGUMENTS -->     what simroute prints with these arguments; not compared by --check, for it takes long

docs/policies/ has a page for each policy, which is made where it is missing and goes with its policy.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
# Before this script's own folder, where docs/policies would be taken for the package.
sys.path.insert(0, str(ROOT))

from policy_pages import POLICY_PARTS  # noqa: E402
from reference_parts import REFERENCE_PARTS  # noqa: E402

PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/policies/README.md")
POLICY_PAGES: Final = ROOT / "docs/policies"
PARTS: Final = {**REFERENCE_PARTS, **POLICY_PARTS}
_LANGUAGES: Final = {".yaml": "yaml", ".py": "python"}
_COLUMNS: Final = "120"


def generated(text: str, *, with_outputs: bool) -> str:
    """A page with every part written anew; those of commands stay as they are without ``with_outputs``."""

    def part(match: re.Match[str]) -> str:
        kind, what = match["kind"], match["what"]
        match kind:
            case "generated":
                content = PARTS[what]()
            case "file":
                language = _LANGUAGES[Path(what).suffix]
                content = f"```{language}\n{(ROOT / what).read_text(encoding='utf-8')}```"
            case _ if with_outputs:
                content = _output(what)
            case _:
                return match[0]
        return f"<!-- {kind}: {what} -->\n\n{content}\n\n<!-- end -->"

    pattern = r"<!-- (?P<kind>generated|file|output): (?P<what>[^>]+?) -->\n.*?<!-- end -->"
    return re.sub(pattern, part, text, flags=re.DOTALL)


def _output(arguments: str) -> str:
    command = [sys.executable, "-m", "simroute", *shlex.split(arguments), "--no-out"]
    environment = os.environ | {"COLUMNS": _COLUMNS}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
    return "\n".join(["```console", f"$ simroute {arguments}", *lines, "```"])


def _policy_pages() -> dict[Path, str]:
    """Each policy's page as it is, or as it begins."""
    pages = {}
    for part in POLICY_PARTS:
        page = POLICY_PAGES / f"{part.removeprefix('policy ')}.md"
        pages[page] = (
            page.read_text(encoding="utf-8") if page.is_file() else f"<!-- generated: {part} -->\n<!-- end -->\n"
        )
    return pages


def main(check: bool) -> int:
    """Write the pages, or say which are out of date."""
    stale = []
    pages = {page: page.read_text(encoding="utf-8") for page in PAGES} | _policy_pages()
    for page in set(POLICY_PAGES.glob("*.md")) - set(pages):
        stale.append(page.relative_to(ROOT))
        if not check:
            page.unlink()
    for page, text in pages.items():
        anew = generated(text, with_outputs=not check)
        if anew != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(anew, encoding="utf-8")
    if check and stale:
        print(f"out of date: {', '.join(map(str, stale))}; make docs writes them anew", file=sys.stderr)
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
