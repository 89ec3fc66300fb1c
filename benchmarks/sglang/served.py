"""What a calibration's visits leave out of serving, told by servers that serve beside it.

A visit decodes the same few requests from their first token to their last. Where requests come and go steps take
longer. How much shows in what neighbours of the calibrated server served meanwhile: their requests are sent again, at
the times they were, to a simulated server with the profile.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import fixed_point

from calibrate.drift import scaled_profile
from calibrate.replay import replay
from simcore.profile import ServiceProfile
from simcore.run_folder import load_run

__all__ = ["as_served", "steps_longer"]

_SETTLED = 1e-3


def as_served(calibrated: str, live_runs: Path, file: Path) -> str:
    """The calibrated profile, by its file, with steps as long as in all live runs beside its calibration, which
    ``live_runs`` has: its ``file``."""
    profile = ServiceProfile.load(calibrated, Path())
    longer = steps_longer(profile, [load_run(run).result.requests for run in sorted(live_runs.iterdir())])
    file.write_text(_with_steps(profile, longer).to_json(), encoding="utf-8")
    return str(file)


def steps_longer(profile: ServiceProfile, runs: Iterable[pd.DataFrame]) -> float:
    """Times how long the profile's steps have to be, so that requests of live runs, when they are replayed with it,
    take as long from their first token to their last as they did, all together. Raises ValueError where no run was long
    enough."""
    servers = [served for requests in runs for _, served in _finished(requests).groupby("server_id")]
    took_s = sum(_decoded_in_full(served, served["finished_at"] - served["first_token_at"]) for served in servers)
    if took_s == 0:
        raise ValueError("nothing was served in full beside the calibration")

    def nearer(longer: float) -> float:
        now = _with_steps(profile, longer)
        return longer * took_s / sum(_decoded_in_full(served, replay(served, now).decode_s) for served in servers)

    return float(fixed_point(nearer, 1.0, xtol=_SETTLED))


def _with_steps(profile: ServiceProfile, longer: float) -> ServiceProfile:
    return scaled_profile(profile, (longer, longer, longer, longer, 1.0))


def _finished(requests: pd.DataFrame) -> pd.DataFrame:
    """In order of dispatch, with whether those that they shared a server with are known too: of a run that was ended,
    requests that were under way then are not, and without them it is replayed as if there had been less to do."""
    cut_short_at = requests.loc[requests["status"] == "unfinished", "first_token_at"].min()
    finished = requests[requests["status"] == "finished"]
    in_full = pd.isna(cut_short_at) | (finished["finished_at"] < cut_short_at)
    return finished.assign(in_full=in_full).sort_values("dispatched_at")


def _decoded_in_full(served: pd.DataFrame, decode_s: npt.ArrayLike) -> float:
    return float(np.asarray(decode_s)[served["in_full"]].sum())
