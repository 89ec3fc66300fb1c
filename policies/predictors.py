"""How long an answer will be: what a router can learn of it, without being told."""

from collections import defaultdict

__all__ = ["RunningMean"]


class RunningMean:
    """The mean length of the answers so far, of requests of the same class: one priority, and prompts of which none is
    twice as long as another. A class without an answer yet gets the mean of all; before any, ``tokens``.

    The newest answer has the weight ``memory`` in a mean, or its even share while that is more. The drivers of both
    worlds keep one and tell it of each answer's end; policies see only what it expects.
    """

    def __init__(self, tokens: float, memory: float = 0.02) -> None:
        self.tokens = tokens
        self._memory = memory
        self._answers = 0
        self._classes: defaultdict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def expected(self, prompt_tokens: int, priority: int) -> int:
        """Tokens of the answer to come, at least 1."""
        key = priority, prompt_tokens.bit_length()
        mean = self._classes[key][1] if key in self._classes else self.tokens
        return max(round(mean), 1)

    def saw(self, prompt_tokens: int, priority: int, output_tokens: int) -> None:
        """An answer was that long."""
        self._answers += 1
        self.tokens += max(self._memory, 1 / self._answers) * (output_tokens - self.tokens)
        of_class = self._classes[priority, prompt_tokens.bit_length()]
        of_class[0] += 1
        of_class[1] += max(self._memory, 1 / of_class[0]) * (output_tokens - of_class[1])
