"""The content of generated prompts: which runs of tokens are the same as another prompt's."""

import numpy as np

from .columns import IntColumn, Segments
from .prefixes import prefix_segments
from .sessions import Conversations

__all__ = ["conversation_segments"]


def conversation_segments(talks: Conversations, group: IntColumn | None, prefix_tokens: IntColumn) -> Segments:
    """Prefix, then message and answer of every earlier turn, then the turn's own message.

    ``group`` and ``prefix_tokens`` are per session, shape (sessions,); no group means no prefix. A run of turn k is
    found by its place in the row: after the prefix, places 2j and 2j+1 are turn j's message and answer.
    """
    lead = 0 if group is None else 1
    runs = lead + 2 * talks.turn + 1
    offsets = np.concatenate(([0], np.cumsum(runs)))
    row = np.repeat(np.arange(len(runs), dtype=np.int64), runs)
    place = np.arange(offsets[-1], dtype=np.int64) - offsets[row] - lead
    # Whose words they are: from the row back to its session's first turn, and on to the turn of this place.
    speaker = row - talks.turn[row] + place // 2
    is_answer = place % 2 == 1
    ids = 2 * speaker + is_answer  # prompt_segment and answer_segment, of a whole column
    tokens = np.where(is_answer, talks.output_tokens[speaker], talks.own_tokens[speaker])
    if group is not None:
        first = offsets[:-1]
        ids[first] = prefix_segments(group[talks.session])
        tokens[first] = prefix_tokens[talks.session]
    return Segments(offsets, ids, tokens)
