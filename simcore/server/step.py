"""One step of the GPU, or a run of equal decode steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .request import ServerRequest

__all__ = ["Prefill", "Step"]


class Prefill(NamedTuple):
    """One request's part of a prefill step: tokens ``start:stop`` of its sequence.

    ``retractions`` tells a request that was retracted while the step ran from one that was not.
    """

    request: ServerRequest
    start: int
    stop: int
    retractions: int

    @property
    def last(self) -> bool:
        """Whether the request's next token comes out of this step."""
        return self.stop == self.request.fill_tokens


@dataclass(slots=True)
class Step:
    """``decode_batch`` requests decode over ``context_tokens`` in all, their new ones included; ``prefills`` prefill.

    Both in one step is a mixed step.
    """

    decode_batch: int = 0
    context_tokens: int = 0
    prefills: Sequence[Prefill] = ()
    new_tokens: int = 0
    attended: float = 0.0
    changed: bool = False
    """Whether its requests are other than the step's before it."""
