"""The simulator against one real SGLang server on a GPU.

usage: validate_gpu.py --url URL [--api-key KEY in SIMROUTE_UPSTREAM_KEY] [--out FOLDER] [--resume]
       validate_gpu.py --emulate SPEED [--out FOLDER] [--resume]      (the same on an emulator, to try the script)

The server runs already, with nobody else's traffic on it. Dummy weights do: random prompts are sent, and answers have
their asked length. It is calibrated, then driven at 40% to 110% of its capacity, by 1 to 256 clients in a closed loop,
under two orders of the router's queue, and with a cap that changes. Tables, plots and what did not hold go to FOLDER;
FOLDER/calibration-gpu/profile.json is the profile to bundle. About 50 minutes.
"""

from experiments import Experiment
from sitting import ROOT, Sitting, arguments, given_by

CAP = 32
"""Fewer than a GPU runs at once, so that a queue builds up at the router and its order matters."""


def on_one_server(sitting: Sitting, url: str, profile: str) -> None:
    """All experiments."""
    rates = sitting.rates_around_capacity("validation-gpu", profile, clients=512)
    capped = sitting.rates_around_capacity("validation-gpu", profile, clients=CAP)
    sitting.validate(Experiment.rates(_listed(rates), below=rates[-1]), [url], profile)
    sitting.validate(Experiment.closed_loop(), [url], profile)
    sitting.validate(Experiment.order(_listed(capped[-2:]), CAP), [url], profile)
    sitting.validate(Experiment.caps("validation-gpu-caps"), [url], profile)


def _listed(rates: list[float]) -> str:
    return ",".join(f"{rate:g}" for rate in rates)


def main() -> None:
    parser, servers = arguments(__doc__, ROOT / "results/validation-gpu")
    servers.add_argument("--url", help="the server's")
    said = parser.parse_args()
    sitting = Sitting(given_by(said))
    profile = "llama-2-7b-h100" if said.url is None else sitting.calibrate(said.url, "gpu", "5m")
    on_one_server(sitting, said.url or "", profile)
    sitting.say(f"done: {sitting.given.out / 'README.md'}")


if __name__ == "__main__":
    main()
