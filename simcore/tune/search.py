"""The search: optuna's tree of Parzen estimators proposes, simulation judges."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies import PolicyError, Span
from simcore.errors import UserError

from .evaluate import Evaluator, Score
from .space import Dimension, Space, Values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["LOST_MARGIN", "Limits", "Search", "Trial", "search"]

LOST_MARGIN: Final = 0.001
"""A setting that loses this much more of the requests than the default is out: what is lost has no latency."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting; number 0 is the default. ``note`` says why it does not count, empty where it does."""

    number: int
    values: Values
    score: Score | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What was tried, in order; ``interrupted``: it was stopped before its end."""

    trials: tuple[Trial, ...]
    best: Trial
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """When a search ends, whichever comes first."""

    trials: int | None
    budget_s: float | None


def search(
    space: Space,
    evaluator: Evaluator,
    seeds: Sequence[int],
    limits: Limits,
    *,
    maximize: bool,
    seed: int,
    on_trial: Callable[[Trial, Trial], None],
) -> Search:
    """The default first, then what optuna proposes; ``on_trial`` is told of each trial and of the best so far.

    The same seed gives the same trials; a budget decides only how many. Raises UserError without optuna, PolicyError
    where the default itself fails, KeyboardInterrupt where it was stopped before the default was done.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize" if maximize else "minimize", sampler=optuna.samplers.TPESampler(seed=seed)
    )
    started = time.monotonic()
    default = evaluator.score(space.setting(space.defaults()), seeds)
    if default is None:
        raise KeyboardInterrupt
    if math.isnan(default.mean):
        raise UserError("the objective cannot be measured with the default parameters")
    distributions = {dimension.name: _distribution(dimension) for dimension in space.dimensions}
    if all(dimension.holds_default for dimension in space.dimensions):
        study.add_trial(
            optuna.trial.create_trial(params=space.defaults(), distributions=distributions, value=default.mean)
        )
    trials = [Trial(0, space.defaults(), default)]
    best = trials[0]
    on_trial(best, best)
    while not _over(limits, len(trials), time.monotonic() - started):
        asked = study.ask(distributions)
        values = {dimension.name: dimension.value(asked.params[dimension.name]) for dimension in space.dimensions}
        trial = _judged(len(trials), values, space, evaluator, seeds, default)
        if trial is None:
            return Search(tuple(trials), best, interrupted=True)
        trials.append(trial)
        if trial.note or trial.score is None:
            study.tell(asked, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(asked, trial.score.mean)
            if _better(trial, best, maximize=maximize):
                best = trial
        on_trial(trial, best)
    return Search(tuple(trials), best, interrupted=False)


def _judged(
    number: int, values: Values, space: Space, evaluator: Evaluator, seeds: Sequence[int], default: Score
) -> Trial | None:
    try:
        score = evaluator.score(space.setting(values), seeds)
    except PolicyError as error:
        return Trial(number, values, None, str(error))
    if score is None:
        return None
    note = ""
    if math.isnan(score.mean):
        note = "nothing could be measured"
    elif not evaluator.counts_lost and score.lost_share > default.lost_share + LOST_MARGIN:
        note = f"loses {score.lost_share:.2%} of the requests, the default {default.lost_share:.2%}"
    return Trial(number, values, score, note)


def _over(limits: Limits, trials: int, elapsed_s: float) -> bool:
    enough = limits.trials is not None and trials > limits.trials
    return enough or (limits.budget_s is not None and elapsed_s >= limits.budget_s)


def _better(trial: Trial, best: Trial, *, maximize: bool) -> bool:
    assert trial.score is not None
    assert best.score is not None
    return trial.score.mean > best.score.mean if maximize else trial.score.mean < best.score.mean


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    where = dimension.where
    if not isinstance(where, Span):
        return CategoricalDistribution(where)
    if dimension.whole:
        return IntDistribution(int(where.low), int(where.high), log=where.log)
    return FloatDistribution(where.low, where.high, log=where.log)


def _optuna() -> Any:
    try:
        with warnings.catch_warnings():
            # What its dependencies say of themselves is not for the user of this command.
            warnings.simplefilter("ignore")
            import optuna
    except ModuleNotFoundError as error:
        raise UserError(f"simroute tune needs optuna ({error}): pip install 'simroute[tune]'") from error
    return optuna
