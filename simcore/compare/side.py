"""A run as one side of a comparison."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from simcore.metrics import observe, summarise
from simcore.records import RunResult
from simcore.scenario import Scenario
from simcore.summary import Summary

__all__ = ["Side", "same_workload", "side_of"]


@dataclass(frozen=True, slots=True)
class Side:
    """A run with its name in the comparison. ``measured`` are the rows of the measured requests, ``observed`` their
    latencies (``metrics.observe``), both by request_id in order of arrival."""

    label: str
    result: RunResult
    summary: Summary
    measured: pd.DataFrame
    observed: pd.DataFrame

    @classmethod
    def make(cls, label: str, result: RunResult, summary: Summary) -> "Side":
        """``summary`` says which requests are measured, and by which limits."""
        observed = observe(result, summary.slo, summary.warmup_s)
        measured = result.requests.set_index(pd.Index(result.requests["request_id"], name="request_id"))
        return cls(label, result, summary, measured.loc[observed.index], observed)


def side_of(label: str, result: RunResult, scenario: Scenario) -> Side:
    """A run that has just ended."""
    return Side.make(label, result, summarise(result, scenario.slo.bounds(), scenario.warmup_s))


def same_workload(ours: RunResult, theirs: RunResult) -> bool:
    """Whether both runs had the same requests: as many, with the same prompts, and answers of the same length wherever
    both finished one. When they arrived may differ, as it does in a closed loop."""
    mine, other = ours.requests, theirs.requests
    if len(mine) != len(other) or not np.array_equal(mine["prompt_tokens"], other["prompt_tokens"]):
        return False
    both = (mine["status"] == "finished").to_numpy() & (other["status"] == "finished").to_numpy()
    return np.array_equal(mine["output_tokens"].to_numpy()[both], other["output_tokens"].to_numpy()[both])
