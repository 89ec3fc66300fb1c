"""What ``simroute live`` does: checks everything, starts servers, runs one policy after the other, and shows them."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from simcore.cli.run_sim import Finding, policy_word, profile_digest, show
from simcore.errors import UserError
from simcore.experiment.check import check_experiment
from simcore.manifest import make_manifest
from simcore.metrics import observe, summarise
from simcore.remote_profile import AnyProfile
from simcore.report import MeasuredRun, compare
from simcore.run_folder import ComparisonFolder, comparison_folder, write_run
from simcore.scenario import PolicySpec, Scenario, load_scenario, resolved_yaml
from simcore.staging import check_out

from .launcher import SGLangLaunch, backends_of, emulators, sglang_servers
from .progress import LiveProgress
from .run import LiveOptions, LiveRun, run_live

__all__ = ["End", "LiveCommand", "carry_out"]


@dataclass(frozen=True, slots=True)
class LiveCommand:
    """The options of ``simroute live``; exactly one of ``servers``, ``emulate`` and ``launch`` is given."""

    scenario: str
    policies: tuple[tuple[str, dict[str, object]], ...]
    seed: int | None
    overrides: tuple[str, ...]
    servers: tuple[str, ...]
    emulate: int | None
    launch: int | None
    sglang: SGLangLaunch | None
    options: LiveOptions
    out: Path
    no_out: bool
    as_json: bool
    quiet: bool
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """What decides the exit code."""

    interrupted: bool
    invalid: bool


async def carry_out(command: LiveCommand) -> End:
    """Run and show. Raises UserError and PolicyError."""
    scenario = load_scenario(command.scenario, command.overrides)
    if command.policies:
        given = tuple(PolicySpec(name=name, params=params) for name, params in command.policies)
        scenario = scenario.model_copy(update={"policies": given})
    profiles = check_experiment(scenario)
    if not command.no_out:
        check_out(command.out)
    runs = _Live(command, scenario, profiles)
    finding, invalid = await runs.run()
    show(finding, (), as_json=command.as_json)
    for policy, reason in invalid:
        click.echo(f"simroute: {policy}: the run is invalid: {reason}", err=True)
    return End(finding.interrupted and not runs.gave_up, bool(invalid))


class _Live:
    """The runs of one call, one after the other: they share the machine."""

    def __init__(self, command: LiveCommand, scenario: Scenario, profiles: Sequence[AnyProfile]) -> None:
        self._command = command
        self._scenario = scenario
        self._profiles = profiles
        self._seed = scenario.seed if command.seed is None else command.seed
        self._emulated: list[AnyProfile] = []
        self._options = command.options
        if command.emulate is not None:
            self._emulated = [profiles[index % len(profiles)] for index in range(command.emulate)]
            self._options = replace(command.options, backends=backends_of(self._emulated))
        self._runs: list[MeasuredRun] = []
        self._invalid: list[tuple[str, str]] = []
        self._path: Path | None = None
        self.gave_up = False

    async def run(self) -> tuple[Finding, list[tuple[str, str]]]:
        """All policies, or those until Ctrl-C or until the servers are gone; and those whose runs prove nothing, with
        the reason."""
        command, scenario = self._command, self._scenario
        with ExitStack() as stack:
            together: ComparisonFolder | None = None
            if len(scenario.policies) > 1 and not command.no_out:
                together = stack.enter_context(comparison_folder(command.out, scenario.name, datetime.now(UTC)))
            progress = stack.enter_context(LiveProgress(quiet=command.quiet))
            async with AsyncExitStack() as servers:
                urls = await servers.enter_async_context(self._servers())
                interrupted = await self._run_policies(urls, together, progress)
            comparison = compare(self._runs)
            if together is not None:
                together.finish(comparison, config=resolved_yaml(scenario), command=self._words(scenario.policies))
        path = together.path if together is not None else self._path
        ran, asked_for = len(self._runs), len(scenario.policies)
        return Finding(comparison, path, interrupted, ran, asked_for), self._invalid

    async def _run_policies(
        self, urls: Sequence[str], together: ComparisonFolder | None, progress: LiveProgress
    ) -> bool:
        for policy in self._scenario.policies:
            progress.begin(policy.label)
            started_at = datetime.now(UTC)
            with tempfile.TemporaryDirectory(prefix="simroute-") as folder:
                run = await run_live(
                    self._scenario,
                    policy,
                    self._seed,
                    urls,
                    self._options,
                    Path(folder),
                    partial(progress.show, policy.label),
                )
                self._keep(policy, run, started_at, together)
            if run.result.interrupted:
                self.gave_up = run.gave_up
                return True
        return False

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[list[str]]:
        command = self._command
        if command.emulate is not None:
            async with emulators(self._emulated, speed=command.options.speed, seed=self._seed) as urls:
                yield urls
        elif command.launch is not None:
            if command.sglang is None:
                raise UserError("--launch starts SGLang: say what it serves with --model")
            async with sglang_servers(command.sglang, command.launch) as urls:
                yield urls
        else:
            yield list(command.servers)

    def _keep(self, policy: PolicySpec, run: LiveRun, started_at: datetime, together: ComparisonFolder | None) -> None:
        scenario, result = self._scenario, run.result
        slo = scenario.slo.bounds()
        measured = MeasuredRun(summarise(result, slo, scenario.warmup_s), observe(result, slo, scenario.warmup_s))
        self._runs.append(measured)
        if run.invalid is not None:
            self._invalid.append((policy.label, run.invalid))
        if self._command.no_out:
            return
        config = resolved_yaml(scenario.model_copy(update={"policies": (policy,), "seed": self._seed}))
        used = self._profiles if self._command.emulate is not None else ()
        manifest = make_manifest(
            result,
            command=self._words((policy,)),
            profiles={profile.name: profile_digest(profile) for profile in used},
            started_at=started_at,
            finished_at=datetime.now(UTC),
        )
        if together is not None:
            together.add(result, measured, config=config, manifest=manifest, attached=run.files)
        else:
            self._path = write_run(
                self._command.out, result, measured, config=config, manifest=manifest, attached=run.files
            )

    def _words(self, policies: Sequence[PolicySpec]) -> list[str]:
        """The command line that repeats the runs."""
        command = self._command
        words = ["simroute", "live", "--scenario", command.scenario, *command.words]
        words += [word for policy in policies for word in ("--policy", policy_word(policy))]
        words += ["--seed", str(self._seed)]
        return words + [word for override in command.overrides for word in ("--set", override)]
