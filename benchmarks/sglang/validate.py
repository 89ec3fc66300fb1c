"""The simulator against real SGLang servers on the CPU: ``make validate``. Under 40 minutes on two cores.

usage: validate.py --sglang VENV [--out FOLDER] [--resume]        (VENV: what tests/sglang/install.sh makes)
       validate.py --emulate SPEED [--out FOLDER] [--resume]      (the same on emulators, to try the script)

Starts four servers, calibrates one of them, and runs ``simroute validate`` on all: six policies at four rates; shared
prefixes; a cap that changes; one server under continuous and static batches; and, on a server of its own, a KV pool too
small for what is admitted. Tables, plots and what did not hold go to FOLDER.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from servers import slow_down, start, stop, wait

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from validation_report import Experiment, write_report  # noqa: E402

from simcore.engine import simulate  # noqa: E402
from simcore.scenario import PolicySpec, load_scenario  # noqa: E402

PORTS = (31981, 31982, 31983, 31984)
SHARES = (0.4, 0.7, 0.9, 1.1)
"""Of capacity."""
BATCHES = "docs/examples/static_batches.py:StaticBatches:size=8"
SMALL_POOL = {"max_total_tokens": 768, "max_running_requests": 16, "schedule_conservativeness": 0.3}


@dataclass(frozen=True)
class Given:
    """The command line. ``speed`` is that of emulators, None with real servers."""

    sglang: Path | None
    speed: float | None
    out: Path
    resume: bool


class Sitting:
    """The experiments of one call, with the servers and the profile that they are run on."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.began = time.monotonic()
        self.experiments: list[Experiment] = []

    def say(self, text: str) -> None:
        print(f"[{(time.monotonic() - self.began) / 60:5.1f} min] {text}", file=sys.stderr, flush=True)

    def simroute(self, *words: str, may_fail_gates: bool = False) -> None:
        """Run it; a gate that fails is a finding."""
        self.say(shlex.join(["simroute", *words]))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "simroute", *words],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode not in ((0, 99) if may_fail_gates else (0,)):
            sys.exit(done.returncode)

    def calibrate(self, url: str, name: str, budget: str) -> Path:
        """The profile of a server, measured now."""
        folder = self.given.out / f"calibration-{name}"
        if not (self.given.resume and (folder / "profile.json").is_file()):
            self.simroute("calibrate", "--url", url, "--budget", budget, "--name", name, "--out", str(folder))
        return folder / "profile.json"

    def validate(self, experiment: Experiment, urls: list[str], profile: str) -> None:
        """One experiment; its bars are the gates."""
        folder = self.given.out / experiment.name
        if not self.given.resume and folder.exists():
            subprocess.run(["rm", "-r", str(folder)], check=True)
        words = ["validate", "--scenario", experiment.scenario, "--set", f"servers.0.profile={profile}"]
        words += ["--set", f"servers.0.count={len(urls)}", *experiment.options]
        if self.given.speed is None:
            words += ["--servers", ",".join(urls)]
        else:
            words += ["--emulate", str(len(urls)), "--speed", f"{self.given.speed:g}"]
        words += [word for bar in experiment.bars for word in ("--fail-on", bar.gate)]
        self.simroute(*words, "--out", str(folder), may_fail_gates=True)
        self.experiments.append(experiment)
        write_report(self.given.out, self.experiments, emulated=self.given.speed is not None)


def capacity_rps(profile: str) -> float:
    """What four servers with the profile can take: many clients in a closed loop, simulated."""
    changes = [f"servers.0.profile={profile}", "workload.arrivals={kind: closed_loop, max_concurrency: 64}"]
    scenario = load_scenario("validation-sglang-cpu", [*changes, "workload.duration_s=null", "workload.requests=2000"])
    result = simulate(scenario, PolicySpec(name="least_request"), 0)
    return len(result.requests) / result.duration_s


def with_slow_servers(sitting: Sitting, urls: list[str], profile: str) -> None:
    """The experiments on four servers, and on one of them."""
    capacity = capacity_rps(profile)
    rates = [round(share * capacity, 1) for share in SHARES]
    sitting.say(f"capacity {capacity:.1f} req/s, so rates {rates}")
    listed = ",".join(f"{rate:g}" for rate in rates)
    sitting.validate(Experiment.policies(listed, below=rates[-1]), urls, profile)
    sitting.validate(Experiment.prefixes(), urls, profile)
    sitting.validate(Experiment.caps(), urls, profile)
    sitting.validate(Experiment.node(BATCHES), urls[:1], profile)


def on_real_servers(sitting: Sitting, sglang: Path) -> None:
    python, given = str(sglang / "bin/python"), sitting.given
    model = given.out / "model"
    subprocess.run([python, str(ROOT / "tests/sglang/make_model.py"), str(model), "micro"], check=True)
    urls = [f"http://127.0.0.1:{port}" for port in PORTS]
    with ExitStack() as stack:
        for port in PORTS:
            log = given.out / f"server-{port}.log"
            stack.callback(stop, start(python, str(model), port, log, max_running_requests=8))
        for url in urls:
            wait(url, 300)
            slow_down(url)
        sitting.say("the servers are ready")
        profile = sitting.calibrate(urls[0], "sglang-cpu-micro", "2m")
        with_slow_servers(sitting, urls, str(profile.resolve()))
    with ExitStack() as stack:
        server = start(python, str(model), PORTS[0], given.out / "server-small-pool.log", **SMALL_POOL)
        stack.callback(stop, server)
        wait(urls[0], 300)
        profile = sitting.calibrate(urls[0], "sglang-cpu-micro-small-pool", "1m")
        sitting.validate(Experiment.retraction(), urls[:1], str(profile.resolve()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    servers = parser.add_mutually_exclusive_group(required=True)
    servers.add_argument("--sglang", type=Path)
    servers.add_argument("--emulate", type=float, metavar="SPEED")
    parser.add_argument("--out", type=Path, default=ROOT / "results/validation-sglang-cpu")
    parser.add_argument("--resume", action="store_true", help="go on with the calibration and the cells in FOLDER")
    said = parser.parse_args()
    given = Given(said.sglang, said.emulate, said.out.resolve(), said.resume)
    given.out.mkdir(parents=True, exist_ok=True)
    sitting = Sitting(given)
    if given.sglang is not None:
        on_real_servers(sitting, given.sglang.resolve())
    else:
        with_slow_servers(sitting, [""] * len(PORTS), "sglang-cpu-tiny")
        sitting.validate(Experiment.retraction(), [""], "sglang-cpu-tiny")
    sitting.say(f"done: {given.out / 'README.md'}")


if __name__ == "__main__":
    main()
