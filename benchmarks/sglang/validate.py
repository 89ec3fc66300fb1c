"""The simulator against real SGLang servers on the CPU: ``make validate``. About 40 minutes on two cores.

usage: validate.py --sglang VENV [--held-out] [--out FOLDER] [--resume]      (VENV: what tests/sglang/install.sh makes)
       validate.py --emulate SPEED [--held-out] [--out FOLDER] [--resume]    (the same on emulators, to try the script)

Starts four servers, calibrates one of them, and runs ``simroute validate`` on all: six policies at four rates; shared
prefixes; a cap that changes; one server under continuous and static batches; and, on a server of its own, a KV pool too
small for what is admitted. Tables, plots and what did not hold go to FOLDER. With --held-out it is, in place of these,
two loads on all four that nothing was chosen for: requests in bursts, and conversations.

Servers on two cores slow each other down, which the simulator does not know. So the profile for all four is measured
while the other three never rest, and with steps as long as these have them (``served.py``); the one for a single
server is measured while they are idle. And the machine drifts: the experiments on four servers run in rounds, each
between 45 s more of the one calibration and 30 s more of the other, and all are simulated with what was measured in all
of them. Its pace, and what its host takes of it, are measured beside live runs as well, and in the end each run is
simulated once more, with steps as the calibration found them to be at the pace that the machine had meanwhile, beside
what was taken, and beside neighbours that are as busy as the first simulation has them (``crowding.py``). Of the runs
beside which that was more than a tenth, or whose load generator was late, the worst are measured a second time, where
the script is in time itself.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from crowding import Crowding
from experiments import BURSTS, Experiment
from pace import PaceLog
from paced import validate_at_pace
from served import as_served
from servers import FORWARD_SLEEP_S, running, slow_down, warm_up
from sitting import ROOT, Sitting, arguments, busy, given_by

PORTS = (31981, 31982, 31983, 31984)
SLOW = {"max_running_requests": 4, "context_length": 1024, "dtype": "bfloat16"}
"""Four requests a server at once, as the scenarios have it. With 8 on four servers, two cores are so busy that servers
hold each other up: steps took 15% to 20% longer than on one server alone. No request is longer than 1,024 tokens, and
a calibration measures what a server's limits allow. Half as wide numbers need half the memory bandwidth, which the
servers share."""
SMALL_POOL = SLOW | {"max_total_tokens": 768, "max_running_requests": 16, "schedule_conservativeness": 0.3}
SMALL_POOL_SLEEP_S = 0.01
"""Of each forward pass. With 40 ms bursts run into each other, and the scheduler learns how long answers are."""
LONGEST_STEP = 512
"""Tokens that a step prefills, nearly always: two prompts of up to 256."""
BATCHES = "docs/examples/static_batches.py:StaticBatches:size=4"


def on_fleet(sitting: Sitting, profile: str, *, held_out: bool) -> list[Experiment]:
    """Those on four servers, at rates around their capacity by the profile."""
    scenario = str(ROOT / BURSTS) if held_out else "validation-sglang-cpu"
    rates = sitting.rates_around_capacity(scenario, profile, clients=32)
    listed, below = ",".join(f"{rate:g}" for rate in rates), rates[-1]
    if held_out:
        return [Experiment.bursts(listed, below), Experiment.conversations()]
    return [
        Experiment.policies(listed, below),
        Experiment.prefixes(),
        Experiment.caps("validation-sglang-cpu-caps"),
    ]


def with_fleet(
    sitting: Sitting,
    urls: list[str],
    beside: Callable[[bool], str],
    alone: Callable[[bool], str],
    *,
    held_out: bool,
) -> tuple[list[Experiment], str, str]:
    """The experiments on four servers, and in the end the profiles of one of them ``beside`` full neighbours, which it
    was simulated with, and ``alone``."""
    first = beside(False)
    experiments = on_fleet(sitting, first, held_out=held_out)
    return experiments, *sitting.rounds(experiments, urls, lambda further: beside(True) if further else first, alone)


def on_real_servers(sitting: Sitting, sglang: Path, log: PaceLog, *, held_out: bool) -> None:
    python, given = str(sglang / "bin/python"), sitting.given
    model, neighbours = given.out / "model", given.out / "beside"
    if not given.resume:
        shutil.rmtree(neighbours, ignore_errors=True)
    subprocess.run([python, str(ROOT / "tests/sglang/make_model.py"), str(model), "micro"], check=True)
    urls = [f"http://127.0.0.1:{port}" for port in PORTS]

    def beside(further: bool) -> str:
        load = busy(urls[1:], neighbours)
        calibrated = sitting.calibrate(urls[0], "sglang-cpu-micro-beside", "45s", further=further, beside=load)
        return as_served(calibrated, neighbours, given.out / "profile-as-served.json")

    def alone(further: bool) -> str:
        return sitting.calibrate(urls[0], "sglang-cpu-micro-alone", "30s", further=further)

    def on_one_server(experiment: Experiment, profile: str) -> None:
        sitting.validate(experiment, urls[:1], profile)
        validate_at_pace(sitting, experiment, urls[:1], profile, log)

    with serving(sitting, python, model, PORTS, SLOW, FORWARD_SLEEP_S):
        experiments, profile, of_one = with_fleet(sitting, urls, beside, alone, held_out=held_out)
        crowding = Crowding.between(of_one, profile)
        for experiment in experiments:
            validate_at_pace(sitting, experiment, urls, profile, log, crowding)
        if held_out:
            return
        on_one_server(Experiment.node(BATCHES), of_one)
    with serving(sitting, python, model, PORTS[:1], SMALL_POOL, SMALL_POOL_SLEEP_S):
        on_one_server(Experiment.retraction(), sitting.calibrate(urls[0], "sglang-cpu-micro-small-pool", "60s"))


@contextmanager
def serving(
    sitting: Sitting, python: str, model: Path, ports: Sequence[int], flags: dict[str, object], sleep_s: float
) -> Iterator[None]:
    """Slowed-down servers on the ports, while the block runs."""
    logs = {port: sitting.given.out / f"server-{port}-{flags['max_running_requests']}.log" for port in ports}
    with running(python, str(model), logs, **flags) as servers:
        urls = list(servers)
        sitting.say("warming up")
        warm_up(urls, LONGEST_STEP)
        for url in urls:
            slow_down(url, sleep_s)
        sitting.say(f"ready: {len(ports)} servers")
        yield


def main() -> None:
    parser, servers = arguments(__doc__, ROOT / "results/validation-sglang-cpu")
    servers.add_argument("--sglang", type=Path, metavar="VENV")
    parser.add_argument("--held-out", action="store_true", help="two other loads in place of all experiments")
    said = parser.parse_args()
    given = given_by(said)
    if said.sglang is not None:
        log = PaceLog(given.out / "pace.csv", resume=said.resume)
        sitting = Sitting(given, log.measuring)
        on_real_servers(sitting, said.sglang.resolve(), log, held_out=said.held_out)
    else:
        sitting = Sitting(given)
        profile = "sglang-cpu-tiny"
        with_fleet(sitting, [""] * len(PORTS), lambda _: profile, lambda _: profile, held_out=said.held_out)
        for experiment in () if said.held_out else (Experiment.node(BATCHES), Experiment.retraction()):
            sitting.validate(experiment, [""], profile)
    sitting.say(f"done: {sitting.given.out / 'README.md'}")


if __name__ == "__main__":
    main()
