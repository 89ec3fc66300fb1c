"""How far a server's pace has drifted from its profile, told from the records of a run, term by term.

The run's requests are replayed through the profile's server with each term scaled by a factor; the factors that bring
the replayed latencies nearest to the recorded ones are the drift (robust least squares on their logarithms).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares

from simcore.errors import UserError
from simcore.profile import ServiceProfile

from .replay import replay

__all__ = ["TERMS", "Drift", "ServerRecords", "TermDrift", "fit_drift", "scaled_profile"]

Floats = npt.NDArray[np.float64]

TERMS: Final = ("decode base", "decode context", "prefill base", "prefill tokens", "request overhead")
_FEWEST = 50
_MOST = 2000  # requests of a server; more add time and little else
_BLOCK = 25  # consecutive requests share queues, so their errors are counted together
_STEP = 0.02
_PRIOR = 1e-3  # holds a term that the run does not depend on where it was
_NORMAL_95 = 1.96
_VAGUE = 0.5


@dataclass(frozen=True, slots=True)
class ServerRecords:
    """The finished requests of one server of a run, and the profile it was taken to have."""

    requests: pd.DataFrame
    profile: ServiceProfile


@dataclass(frozen=True, slots=True)
class TermDrift:
    """``factor``: the term now over the term in the profile, with its 95% interval."""

    term: str
    factor: float
    low: float
    high: float

    @property
    def is_known(self) -> bool:
        """Whether the run tells this term at all."""
        return self.high / self.low < 1 + 2 * _VAGUE

    def beyond(self, bound: float) -> bool:
        """Whether it has certainly moved, and by more than ``bound``."""
        return self.is_known and abs(self.factor - 1) > bound and not self.low <= 1 <= self.high

    def sentence(self) -> str:
        """In plain words."""
        if not self.is_known:
            return f"{self.term}: cannot be told from this run"
        return f"{self.term}: {self.factor - 1:+.1%} (95% interval {self.low - 1:+.1%} to {self.high - 1:+.1%})"


@dataclass(frozen=True, slots=True)
class Drift:
    """The terms' drift, and what is left of the latencies' errors (median of their sizes) before and after the refit."""

    terms: tuple[TermDrift, ...]
    error_before: float
    error_after: float
    requests: int


def scaled_profile(profile: ServiceProfile, factors: Sequence[float]) -> ServiceProfile:
    """``profile`` with each of ``TERMS`` multiplied."""
    base, context, prefill_base, tokens, request = (float(factor) for factor in factors)
    steps, prefill = profile.steps, profile.steps.prefill
    decode = steps.decode.model_copy(
        update={
            "base_s": tuple(base * value for value in steps.decode.base_s),
            "context_s": tuple(context * value for value in steps.decode.context_s),
        }
    )
    per_token = ("below_knee_s", "per_token_s", "per_attended_s", "per_cached_s", "per_cached_pair_s")
    scaled = {name: tokens * getattr(prefill, name) for name in per_token}
    prefill = prefill.model_copy(update={"base_s": prefill_base * prefill.base_s, **scaled})
    overheads = {name: request * getattr(profile.requests, name) for name in type(profile.requests).model_fields}
    return profile.model_copy(
        update={
            "steps": steps.model_copy(update={"decode": decode, "prefill": prefill}),
            "requests": profile.requests.model_copy(update=overheads),
        }
    )


def fit_drift(servers: Sequence[ServerRecords]) -> Drift:
    """Raises UserError where a run has too few finished requests."""
    servers = [ServerRecords(_usable(one.requests), one.profile) for one in servers]
    count = sum(len(one.requests) for one in servers)
    if count < _FEWEST:
        raise UserError(f"the run has {count} finished requests of two tokens or more; {_FEWEST} are needed")

    def errors(logs: Floats) -> Floats:
        return np.concatenate([*(_errors(one, np.exp(logs)) for one in servers), _PRIOR * logs])

    start = np.zeros(len(TERMS))
    before = errors(start)
    found = least_squares(errors, start, loss="soft_l1", f_scale=0.05, diff_step=_STEP, x_scale=0.1, max_nfev=25)
    width = _half_widths(found.jac, found.fun)
    terms = tuple(
        TermDrift(term, *(float(np.exp(value)) for value in (log, log - half, log + half)))
        for term, log, half in zip(TERMS, found.x, width, strict=True)
    )
    after = found.fun[: -len(TERMS)]
    return Drift(terms, _typical(before[: -len(TERMS)]), _typical(after), count)


def _usable(requests: pd.DataFrame) -> pd.DataFrame:
    finished = requests[(requests["status"] == "finished") & (requests["output_tokens"] > 1)]
    return finished.sort_values("dispatched_at").head(_MOST)


def _errors(server: ServerRecords, factors: Floats) -> Floats:
    """Logarithms of replayed over recorded latencies: both of each request in turn."""
    rows = server.requests
    found = replay(rows, scaled_profile(server.profile, factors.tolist()))
    ttft_s = (rows["first_token_at"] - rows["dispatched_at"]).to_numpy()
    decode_s = (rows["finished_at"] - rows["first_token_at"]).to_numpy()
    pairs = np.column_stack([found.ttft_s / ttft_s, found.decode_s / decode_s])
    return np.nan_to_num(np.log(np.maximum(pairs, 1e-6)), nan=0.0).ravel()


def _half_widths(jacobian: Floats, errors: Floats) -> Floats:
    """Of the 95% intervals of the logarithms: a sandwich of sums over blocks of consecutive requests."""
    bread = np.linalg.pinv(jacobian.T @ jacobian)
    scores = jacobian * errors[:, None]
    edges = np.arange(0, len(errors), 2 * _BLOCK)
    blocks = np.add.reduceat(scores, edges, axis=0)
    covariance = bread @ (blocks.T @ blocks) @ bread
    # A prior alone would make an unknown term look known.
    vague = np.sqrt(np.diag(bread)) * _PRIOR > 0.1
    return np.where(vague, 1.0, _NORMAL_95 * np.sqrt(np.maximum(np.diag(covariance), 0.0)))


def _typical(errors: Floats) -> float:
    return float(np.median(np.abs(errors)))
