"""One setting under several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from simcore.experiment.board import Board
from simcore.experiment.jobs import Job, run_jobs
from simcore.experiment.metric_values import lost_share, metric_value
from simcore.scenario import Scenario

from .space import Setting

__all__ = ["Evaluator", "Score"]

_JUDGED_BY_FINISHED: Final = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "router_wait_s", "server_latency_s")


@dataclass(frozen=True, slots=True)
class Score:
    """The objective of each seed, and the share of requests lost over all of them."""

    values: tuple[float, ...]
    lost_share: float

    @property
    def mean(self) -> float:
        """The objective; NaN where a seed had nothing to measure."""
        return float(np.mean(self.values))


class Evaluator:
    """Simulates settings on a scenario; ``board`` ends it."""

    def __init__(self, scenario: Scenario, metric: str, board: Board, processes: int) -> None:
        self._scenario = scenario
        self._metric = metric
        self._board = board
        self._processes = processes

    @property
    def counts_lost(self) -> bool:
        """Whether requests that a setting loses make its objective worse."""
        return not self._metric.endswith(_JUDGED_BY_FINISHED)

    def score(self, setting: Setting, seeds: Sequence[int]) -> Score | None:
        """None where it was stopped before all seeds were done. Raises PolicyError where the policy fails."""
        scenario = self._scenario.model_copy(update={"controller": setting.controller})
        jobs = [Job(setting.policy, seed) for seed in seeds]
        outcomes = list(run_jobs(scenario, jobs, self._board, processes=self._processes, exact_steps=False))
        runs = [outcome.run for outcome in outcomes if not outcome.result.interrupted]
        if len(runs) < len(seeds):
            return None
        return Score(
            tuple(metric_value(self._metric, run) for run in runs), float(np.mean([lost_share(run) for run in runs]))
        )
