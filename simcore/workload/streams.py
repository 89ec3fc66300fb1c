"""One random stream a component, so that changing one part of a workload leaves the others as they were."""

import numpy as np

__all__ = ["STREAMS", "stream"]

STREAMS = ("arrivals", "prompt", "output", "expected", "prefixes", "turns", "think", "message", "trace", "models")
"""The components that draw. The order is part of what a seed means: new names go to the end."""


def stream(seed: np.random.SeedSequence, name: str) -> np.random.Generator:
    """The generator of one component: that of the child ``seed.spawn`` would give it.

    The child is made without counting it on ``seed``, so that building the same workload twice from one seed object
    gives the same workload twice.
    """
    child = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, STREAMS.index(name)))
    return np.random.default_rng(child)
