"""Which model each request asks for: drawn by shares, or read from a trace."""

import numpy as np
import pandas as pd

from .columns import IntColumn

__all__ = ["draw_models", "named_models"]


def draw_models(shares: dict[str, float], rng: np.random.Generator, conversation: IntColumn) -> IntColumn:
    """Each request's model, as its place among the keys of ``shares``; shape (requests,). All turns of one
    ``conversation`` have the same; shares count conversations."""
    weights = np.array(list(shares.values()))
    conversations = int(conversation.max(initial=-1)) + 1
    drawn: IntColumn = rng.choice(len(weights), size=conversations, p=weights / weights.sum()).astype(np.int64)
    return drawn[conversation]


def named_models(names: "pd.Series[str]", served_as: dict[str, str]) -> tuple[IntColumn, "pd.Series[bool]"]:
    """Each request's model by a trace's names, as its place among the distinct values of ``served_as``; and which names
    are not among its keys."""
    places = {model: place for place, model in enumerate(dict.fromkeys(served_as.values()))}
    column = names.map({name: places[model] for name, model in served_as.items()})
    return np.asarray(column.fillna(-1), dtype=np.int64), column.isna()
