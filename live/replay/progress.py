"""The line on stderr while a live run goes on."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from .generator import Generator

__all__ = ["LiveProgress"]


class LiveProgress(Progress):
    """Requests that have ended, are in flight and wait at the router; shown on a terminal only."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._bar = self.add_task("starting servers", total=None)

    def begin(self, policy: str) -> None:
        """Another policy's turn."""
        self.reset(self._bar, description=policy)

    def show(self, policy: str, generator: Generator) -> None:
        """How far the run is."""
        driver, recorder = generator.air.driver, generator.recorder
        in_flight = sum(server.in_flight_requests for server in driver.servers.values())
        state = f"{policy}: {in_flight} in flight, {driver.queued_requests} queued"
        self.update(self._bar, total=generator.total, completed=recorder.ended, description=state)
