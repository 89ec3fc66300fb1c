"""A table of a report as text, laid out once for the terminal and the page."""

from dataclasses import dataclass

__all__ = ["Cell", "Column", "TextTable"]


@dataclass(frozen=True, slots=True)
class Column:
    """``meaning`` says what the heading leaves out, for a tooltip. On a narrow terminal columns go in the order of
    ``leaves``, until the rest fits; 0 stays."""

    heading: str
    is_number: bool = True
    meaning: str = ""
    leaves: int = 0
    may_wrap: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """``detail`` is the smaller print, an interval or a remark; ``strong`` marks the best of a column."""

    text: str
    detail: str = ""
    strong: bool = False


@dataclass(frozen=True, slots=True)
class TextTable:
    """Rows have one cell a column; ``notes`` belong under the table, ``detail_note`` too where details are shown."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    detail_note: str = ""
