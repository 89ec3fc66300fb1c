"""Tokens and text without a tokenizer: four bytes of a prompt's text are a token, and a token is four letters."""

import numpy as np
import numpy.typing as npt

from simcore.server.pieces import Pieces

__all__ = ["VOCABULARY", "TokenStore", "Tokens", "text_of", "tokens_of"]

Tokens = npt.NDArray[np.uint32]

VOCABULARY = 32_000
"""Answers are made of token ids below it; prompts may have any."""

_ROOT = -1
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tokens_of(text: str) -> Tokens:
    """A prompt's tokens; equal beginnings of texts have equal beginnings of tokens."""
    encoded = text.encode()
    padded = encoded + b" " * (-len(encoded) % 4)
    return np.frombuffer(padded or b"    ", dtype="<u4")


def text_of(token: int) -> str:
    """A generated token's text."""
    letters = []
    for _ in range(4):
        token, place = divmod(token, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)


class _Segment:
    __slots__ = ("branch", "children", "tokens")

    def __init__(self, tokens: Tokens, branch: tuple[int, int, int]) -> None:
        self.tokens = tokens
        self.branch = branch
        self.children = 0


class TokenStore:
    """Turns token ids into the pieces that the server model's prefix cache compares: equal tokens at the beginning of
    two sequences get the same segments and positions.

    A tree of segments. A sequence follows the segments it agrees with, and the rest of it becomes a new one, which
    branches off at ``(segment, position, first token)``. What was used longest ago is forgotten when more than
    ``max_tokens`` are kept; a prompt seen again after that counts as new.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokens = 0
        self._next = 0
        # In order of use, the longest ago first.
        self._segments: dict[int, _Segment] = {}
        self._branches: dict[tuple[int, int, int], int] = {}

    def pieces(self, tokens: Tokens) -> Pieces:
        """The whole sequence as pieces."""
        pieces: Pieces = []
        parent, position, at = _ROOT, 0, 0
        while at < len(tokens):
            found = self._branches.get((parent, position, int(tokens[at])))
            if found is None:
                found, agreed = self._grow(tokens[at:], (parent, position, int(tokens[at]))), len(tokens) - at
            else:
                segment = self._segments[found] = self._segments.pop(found)
                agreed = _agreed(segment.tokens, tokens[at:])
            pieces.append((found, 0, agreed))
            parent, position, at = found, agreed, at + agreed
        self._forget()
        return pieces

    def answer(self, prompt: Pieces, tokens: Tokens) -> int:
        """A segment for what follows the prompt; a later prompt that begins with both finds it again."""
        parent, _, position = prompt[-1]
        return self._grow(tokens, (parent, position, int(tokens[0])))

    def _grow(self, tokens: Tokens, branch: tuple[int, int, int]) -> int:
        segment, self._next = self._next, self._next + 1
        if branch in self._branches:
            # Another answer to the same prompt begins alike: this one is known to its own request only.
            return segment
        self._segments[segment] = _Segment(tokens, branch)
        self._branches[branch] = segment
        if branch[0] in self._segments:
            self._segments[branch[0]].children += 1
        self._tokens += len(tokens)
        return segment

    def _forget(self) -> None:
        while self._tokens > self._max_tokens:
            leaves = [segment for segment, held in self._segments.items() if not held.children]
            for segment in leaves[: max(len(leaves) // 4, 1)]:
                held = self._segments.pop(segment)
                del self._branches[held.branch]
                if held.branch[0] in self._segments:
                    self._segments[held.branch[0]].children -= 1
                self._tokens -= len(held.tokens)


def _agreed(ours: Tokens, theirs: Tokens) -> int:
    shorter = min(len(ours), len(theirs))
    differs = ours[:shorter] != theirs[:shorter]
    first = int(differs.argmax())
    return first if differs[first] else shorter
