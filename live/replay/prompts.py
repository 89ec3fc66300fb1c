"""Token ids for prompts, with the lengths and the shared parts that the workload says."""

import numpy as np
import numpy.typing as npt

from simcore.prompts import Prompts
from simcore.workload import NONE, Workload

__all__ = ["FIRST_TOKEN", "PromptTokens"]

FIRST_TOKEN = 1000
"""Tokens are drawn from here up to ``vocabulary``: below it tokenizers keep their special ones."""

_Ids = npt.NDArray[np.uint64]


class PromptTokens:
    """Equal segments of the workload get equal tokens, whatever their lengths; all others differ.

    A turn's prompt holds the answers of the turns before, as the server gave them: ``answered`` keeps those that a
    later turn needs.
    """

    def __init__(self, workload: Workload, seed: int, *, vocabulary: int = 32_000) -> None:
        self._prompts = Prompts(workload)
        self._seed = seed
        self._span = vocabulary - FIRST_TOKEN
        self._has_next = (workload.next_turn != NONE).tolist()
        self._answers: dict[int, list[int]] = {}

    def ids(self, request_id: int) -> list[int]:
        """The whole prompt's."""
        ids: list[int] = []
        for segment, start, tokens in self._prompts.pieces(request_id):
            ids += self._segment(segment, start, tokens)
        return ids

    def answered(self, request_id: int, output_ids: list[int]) -> None:
        """What the server answered."""
        if self._has_next[request_id]:
            self._answers[request_id] = output_ids

    def _segment(self, segment: int, start: int, tokens: int) -> list[int]:
        # Odd segments from 1 on are answers, by ``answer_segment``.
        known = self._answers.get(segment // 2, []) if segment > 0 and segment % 2 == 1 else []
        said = known[start : start + tokens]
        return said + self._drawn(segment, start + len(said), tokens - len(said))

    def _drawn(self, segment: int, start: int, tokens: int) -> list[int]:
        """Each token by its place, so that a shorter run is the beginning of a longer one."""
        origin = np.uint64(((self._seed << 40) ^ (segment * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF)
        mixed = _mix(np.arange(start, start + tokens, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03) ^ origin)
        ids: list[int] = (mixed % np.uint64(self._span) + np.uint64(FIRST_TOKEN)).tolist()
        return ids


def _mix(values: _Ids) -> _Ids:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Ids = values ^ (values >> np.uint64(31))
    return mixed
