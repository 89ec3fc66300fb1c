"""From a calibration's samples to the profile: fit, verdict, provenance."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from simcore.profile import SCHEMA_VERSION, ServiceProfile
from simcore.profile_measurement import LoadReport, Measurement
from simcore.profile_parts import Provenance, ValidRange

from .fit_samples import Fitted, fit_all
from .samples import ReportSample, Sample
from .server_facts import ServerFacts
from .split import Split, split_samples
from .verdict import Verdict, judge

__all__ = ["Built", "Session", "build_profile", "describe_machine"]


@dataclass(frozen=True, slots=True)
class Session:
    """What is known of a calibration besides its samples. ``gpu`` and ``machine`` are the user's or found out."""

    name: str
    gpu: str
    machine: str
    started_at: datetime
    duration_s: float
    samples_sha256: str
    missed: dict[str, str]
    busy: bool


@dataclass(frozen=True, slots=True)
class Built:
    """A profile, and what it was made of."""

    profile: ServiceProfile
    split: Split
    fitted: Fitted
    verdict: Verdict


def build_profile(facts: ServerFacts, samples: Sequence[Sample], session: Session) -> Built:
    """Raises UserError where the samples are too few for a fit."""
    split = split_samples(samples)
    fitted = fit_all(split, mixed_chunk=facts.settings.mixed_chunk)
    ratio = _clock_ratio(split) if facts.has_decode_moments else None
    verdict = judge(split, fitted, ratio, session.missed, busy=session.busy)
    profile = ServiceProfile(
        schema_version=SCHEMA_VERSION,
        name=session.name,
        provenance=_provenance(facts, fitted, session),
        steps=fitted.steps,
        requests=fitted.requests,
        memory=None,
        kv_tokens_capacity=facts.kv_tokens_capacity,
        context_length=facts.context_length,
        settings=facts.settings,
        valid_range=_valid_range(split),
        residuals=fitted.residuals,
        measurement=Measurement(
            machine=session.machine,
            server_args=facts.args,
            started_at=session.started_at.isoformat(timespec="seconds"),
            duration_s=round(session.duration_s, 1),
            samples=len(split.samples) + split.left_out,
            held_back=fitted.held_back,
            confidence=fitted.confidence,
            server_clock_ratio=ratio,
            load_report=_load_report(samples),
            host=fitted.host,
            verdict=verdict.trust,
            reasons=verdict.reasons,
        ),
    )
    return Built(profile, split, fitted, verdict)


def describe_machine() -> str:
    """Processor, cores and system of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def _clock_ratio(split: Split) -> float | None:
    ratios = [sample.client_step_s / sample.step_s for sample in split.decode]
    return round(float(np.median(ratios)), 4) if ratios else None


def _valid_range(split: Split) -> ValidRange:
    return ValidRange(
        max_batch=max(sample.batch for sample in split.decode),
        max_context_tokens=int(max(sample.context_tokens for sample in split.decode)),
        max_prefill_tokens=max(sample.new_tokens for sample in split.prefill),
    )


def _load_report(samples: Sequence[Sample]) -> LoadReport | None:
    found = [sample for sample in samples if isinstance(sample, ReportSample)]
    if not found:
        return None
    refreshes_s = [sample.refresh_s for sample in found if sample.refresh_s is not None]
    return LoadReport(
        round_trip_s=_short(np.median([sample.round_trip_s for sample in found])),
        refresh_s=_short(np.mean(refreshes_s)) if refreshes_s else None,
        delay_s=_short(np.mean([(sample.seen_after_s, sample.gone_after_s) for sample in found])),
    )


def _short(value: np.floating[Any]) -> float:
    return float(f"{value:.3g}")


def _provenance(facts: ServerFacts, fitted: Fitted, session: Session) -> Provenance:
    notes = [
        "Decode steps are launch to launch by the server's own count where it keeps one, so they hold everything that "
        "a step costs, and steps.overhead_s is 0.",
    ]
    if facts.settings.mixed_chunk:
        notes.append("mixed.decode_context_ratio was fitted to prompts that came while others decoded.")
    else:
        notes.append(
            "The server does not mix prefill and decode, so mixed.decode_context_ratio is an assumption. "
            "residuals.mixed is of the gap that a prefill leaves between the tokens of requests that decode; what it "
            "costs them beyond "
            f"the step itself, {fitted.prefill_scheduling_s * 1e3:.2f} ms, is part of prefill.base_s."
        )
    return Provenance(
        model=facts.model,
        gpu=session.gpu,
        engine="sglang",
        engine_version=facts.engine_version,
        measured_by="simroute calibrate",
        source="measured on a running server",
        licence="the measurement is yours",
        method="non-negative Huber least squares on relative errors",
        date=session.started_at.date().isoformat(),
        notes=tuple(notes),
        samples_sha256={"samples.jsonl": session.samples_sha256},
    )
