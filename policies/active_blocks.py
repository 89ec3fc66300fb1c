"""Blocks of the prompts that are in flight, those that requests share counted once."""

from collections import defaultdict
from math import ceil

from .views import PREFIX_BLOCK_TOKENS, RequestView

__all__ = ["ActiveBlocks", "blocks_of"]


def blocks_of(request: RequestView) -> int:
    """Blocks that its prompt takes up, the last of them perhaps in part."""
    return ceil(request.prompt_tokens / PREFIX_BLOCK_TOKENS)


class ActiveBlocks:
    """``counts`` has the blocks in use at each server. Less than a whole block has no hash and is never shared."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._holders: dict[int, dict[str, int]] = {}

    def add(self, request: RequestView, server_id: str) -> None:
        """The request is in flight there."""
        new = blocks_of(request)
        for block in request.prefix_hashes:
            holders = self._holders.setdefault(block, {})
            requests = holders.get(server_id, 0)
            holders[server_id] = requests + 1
            new -= requests > 0
        self.counts[server_id] += new

    def remove(self, request: RequestView, server_id: str) -> None:
        """It no longer is."""
        gone = blocks_of(request)
        for block in request.prefix_hashes:
            holders = self._holders[block]
            if holders[server_id] > 1:
                holders[server_id] -= 1
                gone -= 1
            elif len(holders) > 1:
                del holders[server_id]
            else:
                del self._holders[block]
        self.counts[server_id] -= gone

    def shared(self, request: RequestView) -> dict[str, int]:
        """How many of the prompt's first blocks each server has in use; without those that have none."""
        found: dict[str, int] = {}
        before: dict[str, int] = {}
        for depth, block in enumerate(request.prefix_hashes):
            holders = self._holders.get(block, {})
            # Who has a block has those before it: as many as before are the same ones.
            if len(holders) < len(before):
                found.update(dict.fromkeys(before.keys() - holders.keys(), depth))
            if not holders:
                return found
            before = holders
        return found | dict.fromkeys(before, len(request.prefix_hashes))
