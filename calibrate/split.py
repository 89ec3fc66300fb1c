"""A calibration's samples by kind: those that count, those held back for scoring, and draws for a bootstrap."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from .neighbours import TOO_MUCH_CORES, TOO_MUCH_STOLEN, Meanwhile
from .samples import DecodeSample, PrefillSample, RideSample, Sample

__all__ = ["Split", "hold_back", "resample", "split_samples", "was_disturbed"]

_HELD_BACK = 5  # one in so many

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


def hold_back(split: Split, rng: np.random.Generator) -> tuple[Split, Split]:
    """Four fifths to fit to, and a fifth of each kind to score, of points that keep another sample."""
    decode = _choose(split.decode, rng)
    prefill = _choose(split.prefill, rng)
    ride = _choose(split.ride, rng)
    training = Split(tuple(decode[0]), tuple(prefill[0]), tuple(ride[0]), left_out=0)
    return training, Split(tuple(decode[1]), tuple(prefill[1]), tuple(ride[1]), left_out=0)


def _choose(samples: Sequence[_S], rng: np.random.Generator) -> tuple[list[_S], list[_S]]:
    wanted = len(samples) // _HELD_BACK
    left = Counter(sample.point for sample in samples)
    held: set[int] = set()
    for index in rng.permutation(len(samples)).tolist():
        if len(held) < wanted and left[samples[index].point] > 1:
            left[samples[index].point] -= 1
            held.add(index)
    keep = [sample for index, sample in enumerate(samples) if index not in held]
    return keep, [samples[index] for index in sorted(held)]


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
