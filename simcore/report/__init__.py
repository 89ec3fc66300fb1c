"""Results for people: terminal tables, plots and the report page."""

from .comparison import Comparison, MeasuredRun, compare
from .terminal import print_comparison, print_run, print_table

__all__ = ["Comparison", "MeasuredRun", "compare", "print_comparison", "print_run", "print_table"]
