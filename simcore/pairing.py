"""What a paired difference of two runs stands on: their requests side by side, and a random stream of its own."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["aligned", "rng_of"]

_Floats = NDArray[np.float64]


def rng_of(name: str) -> np.random.Generator:
    """A stream a measure, so that a number does not depend on which others are shown."""
    return np.random.default_rng(list(name.encode()))


def aligned(ours: pd.Series, theirs: pd.Series) -> tuple[_Floats, _Floats]:
    """Values by request_id, of the same requests in the order of ``theirs``, then those that only ``ours`` has (in a
    closed loop the policy decides when a session's next turn arrives); NaN for a request that one does not have."""
    if ours.index.equals(theirs.index):
        return ours.to_numpy("float64"), theirs.to_numpy("float64")
    ids = theirs.index.append(ours.index.difference(theirs.index))
    return ours.reindex(ids).to_numpy("float64"), theirs.reindex(ids).to_numpy("float64")
