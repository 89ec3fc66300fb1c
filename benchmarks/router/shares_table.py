"""What shares.py measured as tables: each measure of each contender, and what differs by more than chance."""

import re
from pathlib import Path
from typing import Final

import pandas as pd

from simcore.statistics import estimate_over_seeds

__all__ = ["write_tables"]

_BASE, _AGAIN = "sglang-router", "sglang-router again"
_MEASURES: Final = {
    "share_0": "share of the busiest server",
    "share_1": "of the second",
    "share_2": "of the third",
    "share_3": "of the least busy",
    "hits": "prompt tokens from the cache",
}


def write_tables(runs: Path, target: Path) -> None:
    """One table a load and policy, between the markers of ``target``. Differences are seed by seed, as the requests of
    a seed are the same for all."""
    parts: list[str] = []
    for (load, policy), rows in pd.read_csv(runs).groupby(["load", "policy"], sort=False):
        parts += [f"### {policy}, {load} load\n", _table(rows), ""]
    tables = "\n".join(parts)
    text = re.sub(
        r"<!-- tables -->\n.*<!-- end -->",
        lambda _: f"<!-- tables -->\n\n{tables}\n<!-- end -->",
        target.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    target.write_text(text, encoding="utf-8")


def _table(rows: pd.DataFrame) -> str:
    others = [name for name in rows["contender"].unique() if name != _BASE]
    head = ["", _BASE, *(column for name in others for column in (name, "less sglang-router"))]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for measure, words in _MEASURES.items():
        wide = rows.pivot(index="seed", columns="contender", values=measure).dropna() * 100
        cells = [words, f"{wide[_BASE].mean():.1f}%"]
        for name in others:
            differences = (wide[name] - wide[_BASE]).tolist()
            found = estimate_over_seeds(differences)
            differs = found.low > 1e-9 or found.high < -1e-9
            interval = f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
            cells += [f"{wide[name].mean():.1f}%", f"**{interval}**" if differs else interval]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
