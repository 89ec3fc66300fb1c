"""A server's way in: HTTP, tokenizer and the messages between its processes."""

from simcore.profile_parts import RequestOverheads

__all__ = ["Ingress"]


class Ingress:
    """One process takes requests in, in the order in which they were sent and one at a time: a short prompt does not
    overtake a long one, and of requests that are sent at once the first reaches the scheduler before the others, which
    an idle server prefills alone then (SGLang's ``tokenizer_manager.py``, and ``scheduler.py``, which waits for no
    second)."""

    __slots__ = ("_next_at", "_per_prompt_token_s", "_s", "_spacing_s")

    def __init__(self, overheads: RequestOverheads) -> None:
        self._s = overheads.ingress_s
        self._per_prompt_token_s = overheads.ingress_per_prompt_token_s
        self._spacing_s = overheads.ingress_spacing_s
        self._next_at = 0.0

    def ready_at(self, sent_at: float, prompt_tokens: int) -> float:
        """When a request reaches the scheduler, seconds; to be asked once a request, as they are sent."""
        at = max(sent_at + self._s + self._per_prompt_token_s * prompt_tokens, self._next_at)
        self._next_at = at + self._spacing_s
        return at
