"""How far a server's pace has drifted from its profile, told from the records of a run, term by term.

A linear regression: each latency is the sum of what the terms contribute to it, times the factors sought. What they
contribute depends a little on the factors, so it is repeated until they stand. Replaying the run's requests through
the simulated server, before and after, says whether the factors explain the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from simcore.errors import UserError
from simcore.profile import ServiceProfile

from .fit import fit_non_negative
from .replay import replay
from .work_done import TERMS, WorkDone, work_done

__all__ = ["Drift", "ServerRecords", "TermDrift", "fit_drift", "scaled_profile"]

Floats = npt.NDArray[np.float64]

_FEWEST = 50
_MOST = 5000  # requests of a server; more add time and little else
_BLOCK_S = 20  # parts of the run whose errors are taken as independent, as many as fit in it
_ROUNDS = 30
_SETTLED = 1e-4
_HARDLY = 0.005  # of the latencies: a term that contributes less cannot be told
_NORMAL_95 = 1.96
_VAGUE = 0.5


@dataclass(frozen=True, slots=True)
class ServerRecords:
    """The requests of one server of a run, and the profile it was taken to have."""

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
        return self.high - self.low < 2 * _VAGUE

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
    """The terms' drift, and the replayed latencies' errors (median of their sizes) before and after the refit."""

    terms: tuple[TermDrift, ...]
    error_before: float
    error_after: float
    requests: int

    @property
    def factors(self) -> tuple[float, ...]:
        """One a term; 1 where the run does not tell it."""
        return tuple(term.factor if term.is_known else 1.0 for term in self.terms)


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
    servers = [one for one in servers if len(one.requests)]
    count = sum(len(one.requests) for one in servers)
    if count < _FEWEST:
        raise UserError(
            f"the run has {count} finished requests whose tokens came one after another; {_FEWEST} are needed"
        )
    factors = np.ones(len(TERMS))
    for _ in range(_ROUNDS):
        work = _joined([work_done(one.requests, one.profile, factors) for one in servers])
        found = _solve(work)
        settled = bool(np.abs(found - factors).max() < _SETTLED)
        factors = (factors + found) / 2 if not settled else found
        if settled:
            break
    widths = _half_widths(work, factors)
    terms = tuple(
        TermDrift(term, float(factor), float(factor - half), float(factor + half))
        for term, factor, half in zip(TERMS, factors, widths, strict=True)
    )
    drift = Drift(terms, _replay_error(servers, np.ones(len(TERMS))), 0.0, count)
    return Drift(terms, drift.error_before, _replay_error(servers, np.array(drift.factors)), count)


def _usable(requests: pd.DataFrame) -> pd.DataFrame:
    # An answer that came all at once, through a router that was held up or unstreamed, has no time between its tokens.
    in_order = (requests["dispatched_at"] < requests["first_token_at"]) & (
        requests["first_token_at"] < requests["finished_at"]
    )
    finished = requests[(requests["status"] == "finished") & (requests["output_tokens"] > 1) & in_order]
    return finished.sort_values("dispatched_at").head(_MOST)


def _joined(works: list[WorkDone]) -> WorkDone:
    return WorkDone(
        np.vstack([work.seconds for work in works]),
        np.concatenate([work.latency_s for work in works]),
        np.concatenate([work.at for work in works]),
    )


def _solve(work: WorkDone) -> Floats:
    """Robust, relative and non-negative, with one weak row a term that holds it at 1."""
    typical = np.median(work.latency_s)
    rows = np.vstack([work.seconds, typical * np.eye(len(TERMS))])
    return fit_non_negative(rows, np.concatenate([work.latency_s, np.full(len(TERMS), typical)]))


def _half_widths(work: WorkDone, factors: Floats) -> Floats:
    """Of the 95% intervals: a sandwich over stretches of the run, as requests beside each other share their errors."""
    columns = work.seconds / work.latency_s[:, None]
    errors = columns @ factors - 1
    clipped = np.clip(errors, *np.quantile(errors, [0.01, 0.99]))
    bread = np.linalg.pinv(columns.T @ columns)
    span = float(np.ptp(work.at)) or 1.0
    stretch = np.minimum((work.at - work.at.min()) / span * _BLOCK_S, _BLOCK_S - 1).astype(np.int64)
    scores = np.zeros((_BLOCK_S, len(TERMS)))
    np.add.at(scores, stretch, columns * clipped[:, None])
    widths = _NORMAL_95 * np.sqrt(np.maximum(np.diag(bread @ (scores.T @ scores) @ bread), 0.0))
    # A term that hardly contributes is held by the weak row, which would look like certainty.
    told = np.abs(columns).mean(axis=0) > _HARDLY
    return np.where(told, widths, 2 * _VAGUE)


def _replay_error(servers: Sequence[ServerRecords], factors: Floats) -> float:
    errors = []
    for one in servers:
        rows = one.requests
        found = replay(rows, scaled_profile(one.profile, factors.tolist()))
        first, last = rows["first_token_at"].to_numpy(), rows["finished_at"].to_numpy()
        errors += [found.ttft_s / (first - rows["dispatched_at"].to_numpy()) - 1, found.decode_s / (last - first) - 1]
    together = np.concatenate(errors)
    return float(np.nanmedian(np.abs(together)))
