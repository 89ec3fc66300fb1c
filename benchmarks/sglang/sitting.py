"""The experiments of one call of a validation script, each a call of ``simroute validate``."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter, _MutuallyExclusiveGroup
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from experiments import Experiment  # noqa: E402
from validation_report import AS_CALIBRATED, write_report  # noqa: E402

from simcore.engine import simulate  # noqa: E402
from simcore.scenario import PolicySpec, load_scenario  # noqa: E402

SHARES = (0.4, 0.7, 0.9, 1.1)
"""Of capacity."""
_TERMINATED = 128 + signal.SIGTERM
BESIDE = "validation-sglang-cpu"
"""What neighbours of a server serve while it is calibrated."""


@dataclass(frozen=True)
class Given:
    """What every script's command line has. ``speed`` is that of emulators, None with real servers."""

    speed: float | None
    out: Path
    resume: bool


def arguments(about: str | None, out: Path) -> tuple[ArgumentParser, _MutuallyExclusiveGroup]:
    """The command line of a script whose folder is ``out``, and its choice of servers, to which the script adds."""
    parser = ArgumentParser(description=about, formatter_class=RawDescriptionHelpFormatter)
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument("--emulate", type=float, metavar="SPEED", help="try the script on emulators")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=out)
    parser.add_argument("--resume", action="store_true", help="go on with the calibration and the cells in FOLDER")
    return parser, servers


def given_by(said: Namespace) -> Given:
    """Of what ``arguments`` parsed. The folder is there afterwards, without earlier runs unless those are resumed.
    From now on SIGTERM ends the script with all that it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    given = Given(said.emulate, said.out.resolve(), said.resume)
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.resume:
        for cells in given.out.glob("*/cells"):
            shutil.rmtree(cells)
        for document in given.out.glob(f"*/{AS_CALIBRATED}"):
            document.unlink()
    return given


class Sitting:
    """The experiments of one call, with the servers and the profile that they are run on."""

    def __init__(
        self, given: Given, beside_live_runs: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.given = given
        self._beside_live_runs = beside_live_runs
        self._began = time.monotonic()
        self.experiments: list[Experiment] = []

    def minutes(self) -> float:
        """Since it began."""
        return (time.monotonic() - self._began) / 60

    def say(self, text: str) -> None:
        print(f"[{self.minutes():5.1f} min] {text}", file=sys.stderr, flush=True)

    def simroute(self, *words: str, may_fail_gates: bool = False) -> None:
        """Run it; a gate that fails is a finding."""
        self.say(shlex.join(["simroute", *words]))
        code = _run(_simroute(*words))
        if code not in ((0, 99) if may_fail_gates else (0,)):
            sys.exit(code)

    def calibrate(
        self,
        url: str,
        name: str,
        budget: str,
        *,
        further: bool = False,
        beside: AbstractContextManager[None] | None = None,
    ) -> str:
        """The profile of a server, measured now: its file. ``further``: with the samples of earlier calls. ``beside``:
        what goes on meanwhile, entered where anything is measured at all."""
        folder = self.given.out / f"calibration-{name}"
        if further or not (self.given.resume and (folder / "profile.json").is_file()):
            where = ["--resume" if further else "--out", str(folder)]
            with beside or nullcontext():
                self.simroute("calibrate", "--url", url, "--budget", budget, "--name", name, *where)
        return str((folder / "profile.json").resolve())

    def rates_around_capacity(self, scenario: str, profile: str, clients: int) -> list[float]:
        """``SHARES`` of what the scenario's servers can take with the profile, requests a second: as many clients in a
        closed loop, simulated. A call that is resumed has those it began with, though its profile has more samples."""
        file = self.given.out / f"rates-{clients}.json"
        if self.given.resume and file.exists():
            return [float(rate) for rate in json.loads(file.read_text(encoding="utf-8"))]
        changes = [
            f"servers.0.profile={profile}",
            f"workload.arrivals={{kind: closed_loop, max_concurrency: {clients}}}",
            "workload.duration_s=null",
            "workload.requests=2000",
        ]
        result = simulate(load_scenario(scenario, changes), PolicySpec(name="least_request"), 0)
        capacity = len(result.requests) / result.duration_s
        rates = [round(share * capacity, 1) for share in SHARES]
        file.write_text(json.dumps(rates) + "\n", encoding="utf-8")
        return rates

    def rounds(
        self,
        experiments: list[Experiment],
        urls: list[str],
        before: Callable[[bool], str],
        after: Callable[[bool], str],
    ) -> tuple[str, str]:
        """A repeat of each experiment after the other, then again. ``before`` and ``after`` each round measure a
        profile, on from the second (True) with what was measured before, so that what drifts on the machine is in them
        as it is in the runs. Returns both; the first is what is simulated with."""
        profile = other = ""
        for repeats in range(1, max(experiment.repeats for experiment in experiments) + 1):
            profile = before(repeats > 1)
            for experiment in experiments:
                self.validate(experiment, urls, profile, repeats)
            other = after(repeats > 1)
        return profile, other

    def validate(
        self,
        experiment: Experiment,
        urls: list[str],
        profile: str,
        repeats: int | None = None,
        cell_profiles: Path | None = None,
        draws: int = 1,
    ) -> None:
        """One experiment, up to so many repeats of it; its bars are the gates. Live runs in its folder are kept."""
        folder = self.given.out / experiment.name
        words = ["validate", "--scenario", experiment.scenario, "--set", f"servers.0.profile={profile}"]
        words += ["--set", f"servers.0.count={len(urls)}", *experiment.options]
        words += ["--repeats", str(min(repeats or experiment.repeats, experiment.repeats)), "--draws", str(draws)]
        if self.given.speed is None:
            words += ["--servers", ",".join(urls)]
        else:
            words += ["--emulate", str(len(urls)), "--speed", f"{self.given.speed:g}"]
        if cell_profiles is not None:
            words += ["--cell-profiles", str(cell_profiles)]
        words += [word for bar in experiment.bars for word in ("--fail-on", bar.gate)]
        with self._beside_live_runs():
            self.simroute(*words, "--out", str(folder), may_fail_gates=True)
        if experiment not in self.experiments:
            self.experiments.append(experiment)
        write_report(
            self.given.out, self.experiments, script=Path(sys.argv[0]).name, emulated=self.given.speed is not None
        )


@contextmanager
def busy(urls: list[str], out: Path) -> Iterator[None]:
    """While the block runs, as many clients as the router lets through send what the experiments send."""
    cap = load_scenario(BESIDE, []).router.max_running_requests
    assert cap is not None
    clients = f"workload.arrivals={{kind: closed_loop, max_concurrency: {cap * len(urls)}}}"
    changes = [clients, "workload.duration_s=null", "workload.requests=3000", f"servers.0.count={len(urls)}"]
    words = ["live", "--scenario", BESIDE, "--servers", ",".join(urls), "--policy", "least_request"]
    words += [word for change in changes for word in ("--set", change)]
    load = _simroute(*words, "--out", str(out), stderr=subprocess.DEVNULL)
    try:
        yield
        if load.poll() is not None:
            sys.exit(f"the load beside the calibration ended by itself, with {load.returncode}")
    finally:
        load.send_signal(signal.SIGINT)
        load.wait(60)


def _simroute(*words: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "simroute", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)


def _run(process: subprocess.Popen[bytes]) -> int:
    """Its exit code. Where the script ends meanwhile, it waits until the process has ended what that has started."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        # A terminal has sent Ctrl-C to both.
        process.wait()
        raise
    except SystemExit:
        process.terminate()
        process.wait()
        raise
