"""From the ``workload:`` section to the columns that the engine reads."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .arrivals import arrival_times
from .columns import NONE, FloatColumn, IntColumn, Segments, Workload
from .content import conversation_segments
from .lengths import Lengths
from .models import draw_models
from .outputs import expected_outputs
from .prefixes import draw_prefixes
from .sessions import Conversations, Sessions, draw_times
from .spec import WorkloadSpec
from .streams import stream
from .traces import read_trace

__all__ = ["build_workload"]


def build_workload(spec: WorkloadSpec, seed: np.random.SeedSequence, *, base_dir: Path) -> Workload:
    """The requests that ``spec`` describes; the same seed gives the same ones.

    Paths of traces and tables are relative to ``base_dir``, the scenario file's folder. Raises UserError where a file
    is missing or malformed, or a session's first prompt exceeds its limit.
    """
    return _generated(spec, seed, base_dir) if spec.trace is None else _replayed(spec, seed, base_dir)


def _replayed(spec: WorkloadSpec, seed: np.random.SeedSequence, base_dir: Path) -> Workload:
    assert spec.trace is not None
    trace = read_trace(spec.trace, stream(seed, "trace"), base_dir=base_dir)
    arrival_s = trace.arrival_s
    if spec.arrivals is not None:
        arrival_s = arrival_times(spec.arrivals, stream(seed, "arrivals"), count=len(trace.prompt_tokens))
    assert arrival_s is not None
    output = trace.output_tokens if spec.output_limit is None else np.minimum(trace.output_tokens, spec.output_limit)
    workload = _workload(spec, seed, arrival_s, trace.prompt_tokens, output, trace.segments)
    return workload if trace.model is None else replace(workload, model=trace.model, models=spec.model_names)


def _generated(spec: WorkloadSpec, seed: np.random.SeedSequence, base_dir: Path) -> Workload:
    assert spec.arrivals is not None
    first_s: FloatColumn | None = None
    if spec.duration_s is not None:
        first_s = arrival_times(spec.arrivals, stream(seed, "arrivals"), duration_s=spec.duration_s)
    starts = spec.requests if first_s is None else len(first_s)
    assert starts is not None
    group, prefix_tokens = None, np.zeros(starts, dtype=np.int64)
    if spec.prefixes is not None:
        group, prefix_tokens = draw_prefixes(spec.prefixes, stream(seed, "prefixes"), starts, base_dir=base_dir)
    talks = _conversations(spec, seed, prefix_tokens, base_dir)
    is_first = talks.turn == 0
    if first_s is None:
        first_s = arrival_times(spec.arrivals, stream(seed, "arrivals"), count=int(is_first.sum()))
    arrival_s = np.full(len(is_first), np.nan)
    arrival_s[is_first] = first_s
    shared = spec.prefixes is not None or spec.sessions is not None
    segments = conversation_segments(talks, group, prefix_tokens) if shared else None
    prompt = talks.prompt_tokens(prefix_tokens)
    return _workload(spec, seed, arrival_s, prompt, talks.output_tokens, segments, talks)


def _conversations(
    spec: WorkloadSpec, seed: np.random.SeedSequence, prefix_tokens: IntColumn, base_dir: Path
) -> Conversations:
    """The sessions' turns; without sessions each request is a conversation of one turn."""
    assert spec.lengths is not None
    lengths = Lengths(
        spec.lengths,
        prompt=stream(seed, "prompt"),
        output=stream(seed, "output"),
        output_limit=spec.output_limit,
        base_dir=base_dir,
    )
    if spec.sessions is None:
        n = len(prefix_tokens)
        return Conversations(np.zeros(n, dtype=np.int64), np.arange(n, dtype=np.int64), *lengths.draw(n))
    sessions = Sessions(
        spec.sessions, lengths, turns=stream(seed, "turns"), message=stream(seed, "message"), base_dir=base_dir
    )
    return sessions.draw(prefix_tokens, spec.requests)


def _workload(
    spec: WorkloadSpec,
    seed: np.random.SeedSequence,
    arrival_s: FloatColumn,
    prompt: IntColumn,
    output: IntColumn,
    segments: Segments | None,
    talks: Conversations | None = None,
) -> Workload:
    n = len(prompt)
    model = None
    if spec.models is not None:
        conversation = np.arange(n, dtype=np.int64) if talks is None else talks.session
        model = draw_models(spec.models, stream(seed, "models"), conversation)
    session, following, think_s = np.full(n, NONE), np.full(n, NONE), np.zeros(n)
    if spec.sessions is not None and talks is not None:
        later = np.flatnonzero(talks.turn > 0)
        session = talks.session
        following[later - 1] = later
        think_s[later] = draw_times(spec.sessions.think_s, stream(seed, "think"), len(later))
    return Workload(
        arrival_s=arrival_s,
        prompt_tokens=prompt,
        output_tokens=output,
        max_new_tokens=output.copy() if spec.output_limit is None else np.full_like(output, spec.output_limit),
        expected_output_tokens=expected_outputs(
            spec.expected_output, output, spec.output_limit, stream(seed, "expected")
        ),
        session_id=session,
        next_turn=following,
        think_s=think_s,
        priority=np.zeros(n, dtype=np.int64),
        ignore_eos=spec.ends_by_length,
        segments=segments,
        max_concurrency=spec.client_limit,
        model=model,
        models=() if model is None else spec.model_names,
    )
