"""From runs to estimates, ranks and the tables of results/policies/README.md."""

import re
from pathlib import Path
from typing import Final

import pandas as pd
from cases import CASES, REPORT_INTERVALS_S

from simcore.statistics import Estimate, estimate_over_seeds, paired_difference_over_seeds

__all__ = ["BASE", "METRICS", "estimated", "read_runs", "write_readme"]

BASE: Final = "round_robin"
METRICS: Final = {
    "goodput_rps": ("goodput req/s", 1.0, 1),
    "throughput_rps": ("throughput req/s", 1.0, 1),
    "mean_ttft_s": ("mean TTFT ms", 1e3, 0),
    "p99_ttft_s": ("p99 TTFT ms", 1e3, 0),
    "mean_tpot_s": ("mean TPOT ms", 1e3, 1),
    "mean_e2e_s": ("mean E2E s", 1.0, 2),
    "p99_e2e_s": ("p99 E2E s", 1.0, 1),
    "hits": ("cache hits", 100.0, 1),
    "lost": ("lost", 100.0, 1),
}
"""What is shown of each metric: its head, a factor, and the decimal places."""
_HIGHER: Final = ("goodput_rps", "throughput_rps", "hits")
_NOTED: Final = 5
"""Most policies that a sentence names."""


def read_runs(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs, and those that could not be: case, contender and the reason."""
    frame = pd.read_csv(path, dtype={"left_out": "str"})
    refused = frame["left_out"].notna()
    left_out = frame.loc[refused, ["case", "contender", "left_out"]].drop_duplicates()
    return frame[~refused].drop(columns="left_out"), left_out


def estimated(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a case, contender and metric: mean and 95% interval over replicates, the paired difference from round robin
    and from the case's best, and the rank: 1 plus how many are better with an interval of the difference that says so.
    """
    found = []
    for case, frame in runs.groupby("case", sort=False):
        for metric in METRICS:
            wide = frame.pivot(index="replicate", columns="contender", values=metric).dropna(how="any")
            sign = 1 if metric in _HIGHER else -1
            best = (wide.mean() * sign).idxmax()
            for name in wide:
                own = wide[name].tolist()
                to_base = paired_difference_over_seeds(own, wide[BASE].tolist())
                to_best = paired_difference_over_seeds(own, wide[best].tolist())
                better = sum(_above(estimate_over_seeds(((wide[o] - wide[name]) * sign).tolist())) for o in wide)
                found.append(
                    {
                        "case": case,
                        "contender": name,
                        "metric": metric,
                        "replicates": len(wide),
                        **_columns("", estimate_over_seeds(own)),
                        **_columns("less_round_robin_", to_base.absolute),
                        **_columns("less_round_robin_relative_", to_base.relative),
                        "best": best,
                        **_columns("less_best_", to_best.absolute),
                        "rank": 1 + better,
                    }
                )
    return pd.DataFrame(found)


def _above(difference: Estimate) -> bool:
    return difference.low > 1e-12


def _columns(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {f"{prefix}value": estimate.value, f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}


def write_readme(path: Path, estimates: pd.DataFrame, left_out: pd.DataFrame) -> None:
    """Put the tables between the markers; what is around them is written by hand."""
    parts = [_section(case.name, estimates, left_out) for case in CASES if not case.only]
    tables = "\n".join([*parts, _staleness(estimates)])
    text = (
        path.read_text(encoding="utf-8") if path.exists() else "# Policies compared\n\n<!-- tables -->\n<!-- end -->\n"
    )
    new = re.sub(
        r"<!-- tables -->\n.*<!-- end -->",
        lambda _: f"<!-- tables -->\n\n{tables}\n<!-- end -->",
        text,
        flags=re.DOTALL,
    )
    path.write_text(new, encoding="utf-8")


def _section(case: str, estimates: pd.DataFrame, left_out: pd.DataFrame) -> str:
    frame = estimates[estimates["case"] == case]
    goodput = frame[frame["metric"] == "goodput_rps"].set_index("contender").sort_values("value", ascending=False)
    heads = ["rank", "policy", *(head for head, _, _ in METRICS.values()), "goodput less round_robin's"]
    lines = [f"### {case}", "", _sentence(goodput), "", _row(heads), "|" + "---|" * len(heads)]
    for name, row in goodput.iterrows():
        values = frame[frame["contender"] == name].set_index("metric")
        cells = [_cell(values.loc[metric], factor, places) for metric, (_, factor, places) in METRICS.items()]
        lines.append(_row([str(row["rank"]), f"`{name}`", *cells, _relative(row)]))
    for _, row in left_out[left_out["case"] == case].iterrows():
        lines += ["", f"Left out: {row['contender']}: {row['left_out']}."]
    return "\n".join([*lines, "", f"![{case}](plots/{case}.svg)", ""])


def _sentence(goodput: pd.DataFrame) -> str:
    real = goodput[~goodput.index.str.contains("oracle")]
    first = [f"`{name}`" for name in real.index[real["rank"] == real["rank"].min()]]
    shown = ", ".join(first[:_NOTED]) + (f" and {len(first) - _NOTED} more" if len(first) > _NOTED else "")
    worse = real[real["less_round_robin_high"] < 0]
    text = f"Best goodput of those that no oracle helps: {shown}; nobody is better for sure."
    last = ", ".join(f"`{name}`" for name in worse.index[::-1][:_NOTED])
    return f"{text} {len(worse)} are worse than `{BASE}` for sure{f', the worst: {last}' if len(worse) else ''}."


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(row: pd.Series, factor: float, places: int) -> str:
    half = (row["high"] - row["low"]) / 2 * factor
    sign = "%" if factor == 100.0 else ""
    return f"{row['value'] * factor:,.{places}f}{sign} ± {half:,.{places}f}"


def _relative(row: pd.Series) -> str:
    value, low, high = (row[f"less_round_robin_relative_{end}"] * 100 for end in ("value", "low", "high"))
    return "" if row.name == BASE else f"{value:+.1f}% ({low:+.1f} to {high:+.1f})"


def _staleness(estimates: pd.DataFrame) -> str:
    """Goodput by the age of reports."""
    names = [f"reports-{interval_s:g}s" for interval_s in REPORT_INTERVALS_S]
    frame = estimates[estimates["case"].isin(names) & (estimates["metric"] == "goodput_rps")]
    wide = frame.pivot(index="contender", columns="case", values="value")[names].sort_values(names[-1], ascending=False)
    heads = ["policy", *(f"every {interval_s:g} s" for interval_s in REPORT_INTERVALS_S)]
    lines = ["### Stale reports", "", "Goodput on quickstart (req/s), by how often servers report.", ""]
    lines += [_row(heads), "|" + "---|" * len(heads)]
    for name in wide.index:
        rows = frame[frame["contender"] == name].set_index("case")
        lines.append(_row([f"`{name}`", *(_cell(rows.loc[case], 1.0, 1) for case in names)]))
    return "\n".join([*lines, "", "![reports](plots/reports.svg)", ""])
