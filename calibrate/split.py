"""A calibration's samples by kind: those that count, those held back for scoring, and draws for a bootstrap."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import TypeVar

import numpy as np

from .neighbours import TOO_MUCH_CORES, TOO_MUCH_STOLEN, Meanwhile
from .samples import DecodeSample, PrefillSample, RideSample, Sample

__all__ = ["Split", "fifths", "resample", "split_samples", "was_disturbed"]

_FOLDS = 5

_S = TypeVar("_S", DecodeSample, PrefillSample, RideSample)


@dataclass(frozen=True, slots=True)
class Split:
    """Samples by kind, without those that other work on the machine disturbed, where their point has calmer ones."""

    decode: tuple[DecodeSample, ...]
    prefill: tuple[PrefillSample, ...]
    ride: tuple[RideSample, ...]
    left_out: int

    @property
    def samples(self) -> tuple[DecodeSample | PrefillSample | RideSample, ...]:
        return (*self.decode, *self.prefill, *self.ride)


def was_disturbed(sample: DecodeSample | PrefillSample | RideSample) -> bool:
    """Whether others, or the machine's host, had too much of the machine meanwhile."""
    return not Meanwhile(sample.others_cores, sample.stolen).calm


def split_samples(samples: Sequence[Sample]) -> Split:
    """By kind."""
    decode, decode_out = _calm([sample for sample in samples if isinstance(sample, DecodeSample)])
    prefill, prefill_out = _calm([sample for sample in samples if isinstance(sample, PrefillSample)])
    ride, ride_out = _calm([sample for sample in samples if isinstance(sample, RideSample)])
    return Split(tuple(decode), tuple(prefill), tuple(ride), decode_out + prefill_out + ride_out)


def _calm(samples: list[_S]) -> tuple[list[_S], int]:
    """Without those beside which others, or the machine's host, had notably more of the machine than beside the calmest
    of their point, which always stays."""
    calmest: dict[str, _S] = {}
    for sample in samples:
        calmest[sample.point] = min(calmest.get(sample.point, sample), sample, key=_disturbance)
    kept = [
        sample
        for sample in samples
        if sample.others_cores <= calmest[sample.point].others_cores + TOO_MUCH_CORES
        and sample.stolen <= calmest[sample.point].stolen + TOO_MUCH_STOLEN
    ]
    return kept, len(samples) - len(kept)


def _disturbance(sample: _S) -> float:
    """What others and what the host had of the machine, the worse of the two, over what is too much."""
    return max(sample.others_cores / TOO_MUCH_CORES, sample.stolen / TOO_MUCH_STOLEN)


def fifths(split: Split, rng: np.random.Generator) -> Iterator[tuple[Split, Split]]:
    """Four fifths to fit to and a fifth to score, five times: each sample is held back once, but for a point's only
    one. A single fifth of a short calibration is four to eight samples of a kind, and their luck."""
    of_kinds = _fold_of(split.decode, rng), _fold_of(split.prefill, rng), _fold_of(split.ride, rng)
    for fold in range(_FOLDS):
        out = [[of == fold for of in of_kind] for of_kind in of_kinds]
        yield _chosen(split, [[not held for held in kind] for kind in out]), _chosen(split, out)


def _fold_of(samples: Sequence[_S], rng: np.random.Generator) -> list[int | None]:
    """In which each is held back: a point's samples in one after another, None for its only one."""
    of_point = Counter(sample.point for sample in samples)
    next_of = {point: int(fold) for point, fold in zip(of_point, rng.permutation(len(of_point)), strict=True)}
    folds: list[int | None] = []
    for sample in samples:
        folds.append(next_of[sample.point] % _FOLDS if of_point[sample.point] > 1 else None)
        next_of[sample.point] += 1
    return folds


def _chosen(split: Split, which: Sequence[Sequence[bool]]) -> Split:
    decode, prefill, ride = which
    return Split(
        tuple(compress(split.decode, decode)),
        tuple(compress(split.prefill, prefill)),
        tuple(compress(split.ride, ride)),
        left_out=0,
    )


def resample(split: Split, rng: np.random.Generator) -> Split:
    """As many decode and prefill samples of each point as it has, drawn from them."""

    def drawn(samples: Sequence[_S]) -> tuple[_S, ...]:
        groups: dict[str, list[_S]] = {}
        for sample in samples:
            groups.setdefault(sample.point, []).append(sample)
        return tuple(
            group[int(index)] for group in groups.values() for index in rng.integers(0, len(group), len(group))
        )

    return replace(split, decode=drawn(split.decode), prefill=drawn(split.prefill))
