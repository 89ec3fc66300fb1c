"""How the workload's tests build one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcore.workload import Workload, WorkloadSpec, build_workload

Build = Callable[..., Workload]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """``build(seed=0, **section)``: the workload of a scenario's section; paths are relative to the test's folder."""

    def from_section(seed: int = 0, **section: Any) -> Workload:
        spec = WorkloadSpec.model_validate(section)
        return build_workload(spec, np.random.SeedSequence(seed), base_dir=tmp_path)

    return from_section
