"""The prompts' content: as pieces for a server's prefix cache, as block hashes for a policy."""

from policies.views import PREFIX_BLOCK_TOKENS

from .server.pieces import PageAligner, Pieces
from .workload import Workload, prompt_segment

__all__ = ["Prompts"]


class Prompts:
    """Reads a workload's segments, request by request."""

    def __init__(self, workload: Workload) -> None:
        self._tokens: list[int] = workload.prompt_tokens.tolist()
        self._offsets: list[int] | None = None
        if (segments := workload.segments) is not None:
            self._offsets = segments.offsets.tolist()
            self._runs = list(
                zip(segments.ids.tolist(), [0] * len(segments.ids), segments.tokens.tolist(), strict=True)
            )
        self._blocks = PageAligner(PREFIX_BLOCK_TOKENS)

    def pieces(self, request_id: int) -> Pieces:
        """The whole prompt."""
        if self._offsets is None:
            return [(prompt_segment(request_id), 0, self._tokens[request_id])]
        return self._runs[self._offsets[request_id] : self._offsets[request_id + 1]]

    def prefix_hashes(self, request_id: int) -> tuple[int, ...]:
        """Hashes of the prompt's first block, first two blocks, and so on; equal exactly for equal prefixes."""
        hashes: list[int] = []
        chained = 0
        for segment, start, tokens in self._blocks.align(self.pieces(request_id)):
            # Python's hash of -1 is that of -2: no segment is hashed as -1.
            content = segment if segment >= 0 else segment - 1
            for offset in range(start, start + tokens, PREFIX_BLOCK_TOKENS):
                chained = hash((chained, content, offset))
                hashes.append(chained)
        return tuple(hashes)
