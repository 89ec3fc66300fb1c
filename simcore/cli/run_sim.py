"""What ``simroute sim`` does: checks everything, runs, writes runs as they end, and shows the comparison."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import joblib
from rich.console import Console

from simcore.errors import UserError
from simcore.experiment.board import Board
from simcore.experiment.check import check_experiment
from simcore.experiment.gates import GateFailure, failures, parse_gate
from simcore.experiment.jobs import Job, Outcome, jobs_of, run_jobs, stop_on_interrupt
from simcore.manifest import make_manifest
from simcore.measures import find_measure
from simcore.remote_profile import AnyProfile
from simcore.report import Comparison, MeasuredRun, compare, print_comparison, print_run
from simcore.run_folder import ComparisonFolder, comparison_folder, write_run
from simcore.scenario import PolicySpec, Scenario, load_scenario, resolved_yaml
from simcore.staging import check_out
from simcore.summary import json_safe

from .progress import ExperimentProgress

__all__ = ["End", "Finding", "Request", "carry_out", "policy_word", "profile_digest", "show"]

OUTPUT_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Request:
    """The options of ``simroute sim``."""

    scenario: str
    policies: tuple[tuple[str, dict[str, object]], ...]
    seeds: tuple[int, ...] | None
    overrides: tuple[str, ...]
    out: Path
    no_out: bool
    rank_by: str | None
    as_json: bool
    quiet: bool
    exact_steps: bool
    gates: tuple[str, ...]
    jobs: int | None


@dataclass(frozen=True, slots=True)
class End:
    """What decides the exit code."""

    interrupted: bool
    gates_failed: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out, where it was written, and of how many of the runs that were asked for."""

    comparison: Comparison
    folder: Path | None
    interrupted: bool
    runs: int
    runs_asked_for: int


def carry_out(request: Request) -> End:
    """Run the experiment and show it. Raises UserError and PolicyError; then nothing was written."""
    scenario = _scenario(request)
    profiles = check_experiment(scenario)
    gates = [parse_gate(text, has_slo=bool(scenario.slo.bounds())) for text in request.gates]
    if not request.no_out:
        check_out(request.out)
    finding = _Experiment(request, scenario, profiles).run()
    failed = failures(gates, finding.comparison)
    show(finding, failed, as_json=request.as_json)
    return End(finding.interrupted, bool(failed))


def _scenario(request: Request) -> Scenario:
    scenario = load_scenario(request.scenario, request.overrides)
    if request.policies:
        given = tuple(PolicySpec(name=name, params=params) for name, params in request.policies)
        scenario = scenario.model_copy(update={"policies": given})
    if request.rank_by is not None and find_measure(request.rank_by).higher_is_better and not scenario.slo.bounds():
        raise UserError(f"--rank-by {request.rank_by}: it needs an slo, and the scenario sets none")
    return scenario


class _Experiment:
    """The runs of one call, and the folder they go to."""

    def __init__(self, request: Request, scenario: Scenario, profiles: Sequence[AnyProfile]) -> None:
        self._request = request
        self._scenario = scenario
        self._jobs = jobs_of(scenario, request.seeds or (scenario.seed,))
        self._profiles = {profile.name: profile_digest(profile) for profile in profiles}

    def run(self) -> Finding:
        """All runs; after Ctrl-C what there is of them. Raises KeyboardInterrupt where that is nothing."""
        with tempfile.TemporaryDirectory(prefix="simroute-") as temporary:
            board = Board.create(Path(temporary) / "board", len(self._jobs))
            with (
                stop_on_interrupt(board),
                ExperimentProgress(self._scenario.name, board, len(self._jobs), quiet=self._request.quiet),
            ):
                return self._run(board)

    def _run(self, board: Board) -> Finding:
        request, path = self._request, None
        processes = request.jobs or joblib.cpu_count()
        runs: list[MeasuredRun] = []
        with ExitStack() as stack:
            together: ComparisonFolder | None = None
            if len(self._jobs) > 1 and not request.no_out:
                together = stack.enter_context(comparison_folder(request.out, self._scenario.name, datetime.now(UTC)))
            for outcome in run_jobs(
                self._scenario, self._jobs, board, processes=processes, exact_steps=request.exact_steps
            ):
                runs.append(outcome.run)
                path = self._write(outcome, together)
            if not runs:
                raise KeyboardInterrupt
            comparison = compare(_comparable(runs), rank_by=request.rank_by)
            if together is not None:
                together.finish(comparison, config=resolved_yaml(self._scenario), command=self._command(self._jobs))
        interrupted = len(runs) < len(self._jobs) or any(run.summary.interrupted for run in runs)
        return Finding(comparison, together.path if together else path, interrupted, len(runs), len(self._jobs))

    def _write(self, outcome: Outcome, together: ComparisonFolder | None) -> Path | None:
        if self._request.no_out:
            return None
        job, result = outcome.job, outcome.result
        config = resolved_yaml(self._scenario.model_copy(update={"policies": (job.policy,), "seed": job.seed}))
        manifest = make_manifest(
            result,
            command=self._command([job]),
            profiles=self._profiles,
            started_at=outcome.started_at,
            finished_at=outcome.finished_at,
        )
        if together is None:
            return write_run(self._request.out, result, outcome.run, config=config, manifest=manifest)
        together.add(result, outcome.run, config=config, manifest=manifest)
        return None

    def _command(self, jobs: Sequence[Job]) -> list[str]:
        """The command line that repeats the jobs."""
        policies = dict.fromkeys(policy_word(job.policy) for job in jobs)
        seeds = dict.fromkeys(str(job.seed) for job in jobs)
        words = ["simroute", "sim", "--scenario", self._request.scenario]
        words += [word for policy in policies for word in ("--policy", policy)]
        words += ["--seed" if len(seeds) == 1 else "--seeds", ",".join(seeds)]
        words += [word for override in self._request.overrides for word in ("--set", override)]
        return words + ["--exact-steps"] * self._request.exact_steps


def policy_word(policy: PolicySpec) -> str:
    """A policy as the command line takes it."""
    if not policy.params:
        return policy.name
    return f"{policy.name}:{','.join(f'{key}={json.dumps(value)}' for key, value in policy.params.items())}"


def profile_digest(profile: AnyProfile) -> str:
    """A profile's SHA-256."""
    return hashlib.sha256(profile.to_json().encode()).hexdigest()


def _comparable(runs: Sequence[MeasuredRun]) -> list[MeasuredRun]:
    """After an interruption, the seeds that every policy which began has run with; otherwise all runs.

    Jobs begin seed after seed, so there is always one.
    """
    seeds_of: dict[str, set[int]] = {}
    for run in runs:
        seeds_of.setdefault(run.summary.policy, set()).add(run.summary.seed)
    common = set.intersection(*seeds_of.values())
    return [run for run in runs if run.summary.seed in common]


def show(finding: Finding, failed: Sequence[GateFailure], *, as_json: bool) -> None:
    """What came out, on the terminal or as JSON."""
    if as_json:
        click.echo(json.dumps(_document(finding, failed), indent=2, allow_nan=False, ensure_ascii=False))
    else:
        console = Console()
        several = len(finding.comparison.contenders) > 1
        (print_comparison if several else print_run)(console, finding.comparison)
        if finding.folder is not None:
            console.print(f"\nReport: {finding.folder / 'report.html'}", soft_wrap=True, highlight=False, markup=False)
    if finding.interrupted:
        begun = f", of {finding.runs} of {finding.runs_asked_for} runs" if finding.runs_asked_for > 1 else ""
        click.echo(f"simroute: interrupted: these are partial results{begun}", err=True)
    for failure in failed:
        click.echo(f"simroute: {failure}", err=True)


def _document(finding: Finding, failed: Sequence[GateFailure]) -> object:
    """What --json prints."""
    comparison = finding.comparison
    return json_safe(
        {
            "schema_version": OUTPUT_SCHEMA_VERSION,
            "interrupted": finding.interrupted,
            "folder": str(finding.folder) if finding.folder else None,
            "gates_failed": [
                {"gate": str(failure.gate), "policy": failure.policy, "value": failure.value} for failure in failed
            ],
            "comparison": comparison.to_dict(),
            "runs": [run.summary.to_dict() for contender in comparison.contenders for run in contender.runs],
        }
    )
