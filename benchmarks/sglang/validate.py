"""The simulator against real SGLang servers on the CPU: ``make validate``. Under 40 minutes on two cores.

usage: validate.py --sglang VENV [--out FOLDER] [--resume]        (VENV: what tests/sglang/install.sh makes)
       validate.py --emulate SPEED [--out FOLDER] [--resume]      (the same on emulators, to try the script)

Starts four servers, calibrates one of them, and runs ``simroute validate`` on all: six policies at four rates; shared
prefixes; a cap that changes; one server under continuous and static batches; and, on a server of its own, a KV pool too
small for what is admitted. Tables, plots and what did not hold go to FOLDER.

Servers on two cores slow each other down, which the simulator does not know. So the profile for all four is measured
while the other three serve a moderate load, and the one for a single server while they are idle.
"""

import subprocess
from contextlib import ExitStack
from pathlib import Path

from experiments import Experiment
from servers import slow_down, start, stop, wait
from sitting import ROOT, Sitting, arguments, busy, given_by, rates_around_capacity

PORTS = (31981, 31982, 31983, 31984)
RUNNING = 4
"""Requests a server runs at once, as the scenarios have it. With 8 on four servers, two cores are so busy that servers
hold each other up: steps took 15% to 20% longer than on one server alone."""
BATCHES = "docs/examples/static_batches.py:StaticBatches:size=4"
SMALL_POOL = {"max_total_tokens": 768, "max_running_requests": 16, "schedule_conservativeness": 0.3}


def with_slow_servers(sitting: Sitting, urls: list[str], profile: str, alone: str) -> None:
    """The experiments on four servers, and on one of them with the profile of a server that is ``alone``."""
    rates = rates_around_capacity("validation-sglang-cpu", profile, clients=32)
    listed = ",".join(f"{rate:g}" for rate in rates)
    sitting.validate(Experiment.policies(listed, below=rates[-1]), urls, profile)
    sitting.validate(Experiment.prefixes(), urls, profile)
    sitting.validate(Experiment.caps("validation-sglang-cpu-caps"), urls, profile)
    sitting.validate(Experiment.node(BATCHES), urls[:1], alone)


def on_real_servers(sitting: Sitting, sglang: Path) -> None:
    python, given = str(sglang / "bin/python"), sitting.given
    model = given.out / "model"
    subprocess.run([python, str(ROOT / "tests/sglang/make_model.py"), str(model), "micro"], check=True)
    urls = [f"http://127.0.0.1:{port}" for port in PORTS]
    with ExitStack() as stack:
        for port in PORTS:
            log = given.out / f"server-{port}.log"
            stack.callback(stop, start(python, str(model), port, log, max_running_requests=RUNNING))
        for url in urls:
            wait(url, 300)
            slow_down(url)
        sitting.say("the servers are ready")
        alone = sitting.calibrate(urls[0], "sglang-cpu-micro-alone", "90s")
        with busy(urls[1:], given.out / "beside"):
            profile = sitting.calibrate(urls[0], "sglang-cpu-micro", "2m")
        with_slow_servers(sitting, urls, profile, alone)
    with ExitStack() as stack:
        server = start(python, str(model), PORTS[0], given.out / "server-small-pool.log", **SMALL_POOL)
        stack.callback(stop, server)
        wait(urls[0], 300)
        profile = sitting.calibrate(urls[0], "sglang-cpu-micro-small-pool", "1m")
        sitting.validate(Experiment.retraction(), urls[:1], profile)


def main() -> None:
    parser, servers = arguments(__doc__, ROOT / "results/validation-sglang-cpu")
    servers.add_argument("--sglang", type=Path, metavar="VENV")
    said = parser.parse_args()
    sitting = Sitting(given_by(said))
    if said.sglang is not None:
        on_real_servers(sitting, said.sglang.resolve())
    else:
        with_slow_servers(sitting, [""] * len(PORTS), "sglang-cpu-tiny", "sglang-cpu-tiny")
        sitting.validate(Experiment.retraction(), [""], "sglang-cpu-tiny")
    sitting.say(f"done: {sitting.given.out / 'README.md'}")


if __name__ == "__main__":
    main()
