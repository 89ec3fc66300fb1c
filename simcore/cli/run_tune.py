"""What ``simroute tune`` does: checks everything, searches, tests, writes and shows."""

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import joblib
from rich.console import Console
from rich.table import Table
from rich.text import Text

from simcore.errors import UserError
from simcore.experiment.board import Board
from simcore.experiment.check import check_experiment
from simcore.experiment.jobs import stop_on_interrupt
from simcore.experiment.metric_values import NEEDS_SLO, higher_is_better
from simcore.scenario import ControllerSpec, PolicySpec, Scenario, load_scenario
from simcore.staging import check_out
from simcore.tune.evaluate import Evaluator
from simcore.tune.held_back import held_back
from simcore.tune.report import Found, snippet, write
from simcore.tune.search import Limits, Trial, search
from simcore.tune.space import Space, space_of

from .run_sim import policy_word

__all__ = ["TuneRequest", "carry_out"]

_TRIALS = 50


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """The options of ``simroute tune``."""

    scenario: str
    policy: tuple[str, dict[str, object]]
    controller: tuple[str, dict[str, object]] | None
    objective: str
    maximize: bool | None
    trials: int | None
    budget: float | None
    seeds: tuple[int, ...]
    held_back_seeds: tuple[int, ...]
    seed: int
    overrides: tuple[str, ...]
    out: Path
    no_out: bool
    as_json: bool
    quiet: bool
    jobs: int | None


def carry_out(request: TuneRequest) -> bool:
    """Search and show; returns whether it was interrupted. Raises UserError and PolicyError."""
    started_at = datetime.now(UTC)
    scenario, maximize = _scenario(request), _maximize(request)
    space = space_of(scenario.policies[0], scenario.controller, tunes_controller=request.controller is not None)
    check_experiment(scenario)
    _check_seeds(request)
    if request.objective in NEEDS_SLO and not scenario.slo.bounds():
        raise UserError(f"--objective {request.objective}: it needs an slo, and the scenario sets none")
    if not request.no_out:
        check_out(request.out)
    found = _searched(request, scenario, space, maximize)
    folder = None
    if not request.no_out:
        folder = write(request.out, found, started_at, _words(request), policy_word(found.best.policy))
    _show(request, found, folder)
    return found.interrupted


def _scenario(request: TuneRequest) -> Scenario:
    """With the one policy, and the controller that is given; checked as if the file had said so."""
    scenario = load_scenario(request.scenario, request.overrides)
    name, params = request.policy
    changes: dict[str, object] = {"policies": (PolicySpec(name=name, params=params),)}
    if request.controller is not None:
        if any(action.changes_cap for action in scenario.control):
            raise UserError("--controller: the scenario's control changes caps, too: leave one of them out")
        name, params = request.controller
        changes["controller"] = ControllerSpec(name=name, params=params)
    return scenario.model_copy(update=changes)


def _maximize(request: TuneRequest) -> bool:
    known = higher_is_better(request.objective)
    if request.maximize is None and known is None:
        raise UserError(f"--objective {request.objective}: say which way is better: --maximize or --minimize")
    return bool(known) if request.maximize is None else request.maximize


def _check_seeds(request: TuneRequest) -> None:
    if both := sorted(set(request.seeds) & set(request.held_back_seeds)):
        raise UserError(f"--held-back-seeds: {', '.join(map(str, both))} would be searched with, too")
    if len(request.held_back_seeds) < 2:
        raise UserError("--held-back-seeds: an interval needs at least two")


def _searched(request: TuneRequest, scenario: Scenario, space: Space, maximize: bool) -> Found:
    processes = request.jobs or joblib.cpu_count()
    limits = Limits(request.trials or (None if request.budget else _TRIALS), request.budget)
    with tempfile.TemporaryDirectory(prefix="simroute-") as folder:
        board = Board.create(Path(folder) / "board", max(len(request.seeds), len(request.held_back_seeds)))
        evaluator = Evaluator(scenario, request.objective, board, processes)
        with stop_on_interrupt(board), _Progress(request, limits.trials) as progress:
            done = search(
                space,
                evaluator,
                request.seeds,
                limits,
                maximize=maximize,
                seed=request.seed,
                on_trial=progress.show,
            )
            test = None
            if done.best.number and not done.interrupted:
                progress.say("held-back seeds")
                best = space.setting(done.best.values)
                test = held_back(space.given, best, evaluator, request.held_back_seeds, maximize=maximize)
        stopped = board.stopped
    return Found(scenario, space, request.objective, maximize, request.seeds, done, test, stopped)


class _Progress:
    """A line on stderr, on a terminal only."""

    def __init__(self, request: TuneRequest, trials: int | None) -> None:
        console = Console(stderr=True)
        self._of = f" of {trials}" if trials else ""
        self._metric = request.objective
        self._status = None if request.quiet or not console.is_terminal else console.status("the default")

    def __enter__(self) -> "_Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """What goes on."""
        if self._status is not None:
            self._status.update(text)

    def show(self, trial: Trial, best: Trial) -> None:
        """A trial is over."""
        assert best.score is not None
        self.say(f"trial {trial.number}{self._of}, best {self._metric} {best.score.mean:.4g}")


def _words(request: TuneRequest) -> list[str]:
    """The command line that repeats the search."""
    policy, controller = request.policy, request.controller
    words = ["simroute", "tune", "--scenario", request.scenario, "--policy", _word(*policy)]
    words += ["--controller", _word(*controller)] if controller is not None else []
    words += ["--objective", request.objective]
    words += [] if request.maximize is None else ["--maximize" if request.maximize else "--minimize"]
    words += ["--trials", str(request.trials)] if request.trials else []
    words += ["--budget", f"{request.budget:g}s"] if request.budget else []
    words += ["--seeds", ",".join(map(str, request.seeds))]
    words += ["--held-back-seeds", ",".join(map(str, request.held_back_seeds)), "--seed", str(request.seed)]
    return words + [word for override in request.overrides for word in ("--set", override)]


def _word(name: str, params: dict[str, object]) -> str:
    return policy_word(PolicySpec(name=name, params=params))


def _show(request: TuneRequest, found: Found, folder: Path | None) -> None:
    if request.as_json:
        document = {**found.to_dict(), "folder": str(folder) if folder else None}
        click.echo(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        console = Console()
        table = Table("parameter", "default", "best", box=None, padding=(0, 2, 0, 0))
        for name, default in found.space.defaults().items():
            table.add_row(Text(name), Text(str(default)), Text(str(found.search.best.values[name])))
        out = sum(bool(trial.note) for trial in found.search.trials)
        console.print(Text(f"{found.scenario.name}  {len(found.search.trials) - 1} settings tried, {out} of them out"))
        console.print(table)
        console.print()
        console.print(Text(found.verdict(), style="bold"))
        if found.search.best.number:
            console.print()
            body = snippet(found, policy_word(found.best.policy)).partition("\n")[2]
            console.print(Text(body.rstrip()), soft_wrap=True)
        if folder is not None:
            console.print(f"\nResults: {folder}", soft_wrap=True, highlight=False, markup=False)
    if found.interrupted:
        tried = len(found.search.trials) - 1
        click.echo(f"simroute: interrupted: this is what was found in {tried} settings", err=True)
