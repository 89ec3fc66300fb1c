"""A small scenario as an object."""

import tempfile
from pathlib import Path

from simcore.scenario import Scenario, load_scenario

from .cli import tiny


def small_scenario(*overrides: str) -> Scenario:
    """``cli.TINY`` with overrides."""
    with tempfile.TemporaryDirectory() as folder:
        return load_scenario(tiny(Path(folder)), overrides)
