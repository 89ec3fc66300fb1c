"""Which model each request asks for, among those that are served."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import UserError
from .scenario import Scenario
from .workload import Workload

__all__ = ["RequestModels", "check_models"]


class RequestModels:
    """Of a workload over servers of ``served``. ``only`` is the one model that all requests ask for, None where they
    ask for several."""

    def __init__(self, workload: Workload, served: Sequence[str]) -> None:
        self.only: str | None = None
        self._count = len(workload)
        self._names = workload.models
        self._places = workload.model
        if workload.model is None:
            self.only = served[0]
        elif len(workload.models) == 1:
            self.only = workload.models[0]

    def column(self) -> npt.NDArray[np.object_]:
        """Each request's, shape (requests,)."""
        if self.only is not None or self._places is None:
            return np.full(self._count, self.only, dtype=object)
        return np.array(self._names, dtype=object)[self._places]


def check_models(scenario: Scenario, served: Sequence[str]) -> None:
    """Whether every request has a model, and each model a server. Raises UserError."""
    names, distinct = scenario.workload.model_names, list(dict.fromkeys(served))
    there = ", ".join(distinct)
    if not names and len(distinct) > 1:
        raise UserError(
            f"scenario {scenario.name}: the servers serve {there}: say in workload.models which of them requests ask "
            "for, each with its share"
        )
    key = "workload.models" if scenario.workload.models is not None else "workload.trace.models"
    for name in names:
        if name not in distinct:
            raise UserError(f"scenario {scenario.name}: {key}: no server serves {name!r}; there are {there}")
