"""A request as a server sees it."""

from .pieces import Pieces
from .radix_cache import Node

__all__ = ["ServerRequest"]


class ServerRequest:
    """One attempt at a request on one server, from submission to its end.

    The first block is given; ``ready_at`` is when it reaches the scheduler, ``shareable`` whether another request may
    have any of its content. The second is the scheduler's state:

    generated      output tokens kept from before the last prefill (more than 0 only after a retraction)
    computed       tokens of the sequence whose KV is there or launched, while prefilling
    protected      tokens of the sequence that the prefix cache holds for it, from the start
    node           where those end in the tree, locked by this request; None also where the tree need not know them
    stamp          when the cache took them over without a node
    joined_at      decode steps launched when it joined the running batch; decode steps are counted by the batch
    running        it is in the running batch
    counts_down    there, what is reserved for its output tokens shrinks with each step
    done           it has left the server
    """

    __slots__ = (
        "answer_segment",
        "cached_tokens",
        "computed",
        "counts_down",
        "done",
        "first_token_at",
        "generated",
        "ignore_eos",
        "joined_at",
        "max_new_tokens",
        "node",
        "output_tokens",
        "pieces",
        "prompt_tokens",
        "protected",
        "ready_at",
        "request_id",
        "retractions",
        "running",
        "sequence",
        "shareable",
        "stamp",
    )

    first_token_at: float
    stamp: int
    joined_at: int
    counts_down: bool
    sequence: int

    def __init__(
        self,
        request_id: int,
        prompt: Pieces,
        prompt_tokens: int,
        output_tokens: int,
        max_new_tokens: int,
        answer_segment: int,
        ready_at: float,
        *,
        ignore_eos: bool,
        shareable: bool = True,
    ) -> None:
        self.request_id = request_id
        self.pieces = prompt
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.max_new_tokens = max_new_tokens
        self.answer_segment = answer_segment
        self.ignore_eos = ignore_eos
        self.ready_at = ready_at
        self.shareable = shareable

        self.generated = 0
        self.computed = 0
        self.protected = 0
        self.node: Node | None = None
        self.running = False
        self.done = False

        self.retractions = 0
        self.cached_tokens = 0

    @property
    def fill_tokens(self) -> int:
        """Tokens to have in the KV cache before the next one is generated."""
        return self.prompt_tokens + self.generated

    def ends_by_length(self) -> bool:
        """Whether the scheduler knows in advance which token is the last."""
        return self.output_tokens >= self.max_new_tokens

    def content(self, output_tokens: int) -> Pieces:
        """The prompt followed by the first ``output_tokens`` of the answer."""
        if output_tokens <= 0:
            return self.pieces
        return [*self.pieces, (self.answer_segment, 0, output_tokens)]
