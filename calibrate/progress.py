"""The bar on stderr while a server is measured."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CalibrationProgress"]


class CalibrationProgress(Progress):
    """The share of the budget that is spent, and the point under way; shown on a terminal only."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:34}"), BarColumn(), TextColumn("{task.fields[samples]} samples"))
        super().__init__(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=quiet or not console.is_terminal
        )
        self._bar = self.add_task("first look", total=1.0, samples=0)

    def update_point(self, point: str, samples: int, share: float) -> None:
        """See ``campaign.Progress``."""
        self.update(self._bar, description=point, samples=samples, completed=share)
