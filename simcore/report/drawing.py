"""From a matplotlib figure to SVG text: the same bytes for the same data, and at home on a light or a dark page."""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["INK", "new_figure", "render", "series_colours", "style", "tidy"]

INK: Final = "#010203"
"""Stands for the text's colour while drawing; ``render`` turns it into ``currentColor``, which follows the page."""

_COLOURS: Final = (
    "#2f7fd1",
    "#e07b26",
    "#2a9d68",
    "#a06cd5",
    "#d9485f",
    "#1a9fb3",
    "#b3822e",
    "#c7559f",
    "#7f8a99",
    "#7d9a2b",
)
"""Apart from each other and from white and near-black alike; each at least 3:1 against both."""

_SETTINGS: Final[dict[Any, Any]] = {
    "svg.hashsalt": "simroute",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def style() -> Iterator[None]:
    """The report's look, for figures made and rendered inside; matplotlib's own settings return afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    return Figure(figsize=(width_in, height_in), layout="constrained")


def tidy(axes: Axes, *, grid: str = "both") -> None:
    """Light grid lines, no tick marks."""
    axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]
    axes.tick_params(length=0, which="both")


def series_colours(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(colour, line style) of each name in its order; the style changes when the colours begin anew."""
    names = list(names)
    dashes = ("solid", "dashed", "dotted", "dashdot")
    pairs = ((colour, dash) for dash in cycle(dashes) for colour in _COLOURS)
    return dict(zip(names, islice(pairs, len(names)), strict=True))


def render(figure: Figure, name: str, description: str) -> str:
    """The figure as one ``<svg>`` element without prolog, date or ids that another figure of the page could have."""
    buffer = io.StringIO()
    # Not savefig, which draws all of it twice: first for a renderer of which it needs nothing here.
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = text.replace(INK, "currentColor")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).rstrip() + "\n"
