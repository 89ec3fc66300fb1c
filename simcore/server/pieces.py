"""A token sequence as pieces: runs of tokens, each a slice of a segment.

A piece is ``(segment, start, tokens)``. Two tokens are equal exactly when segment and position within it are, so the
prefix cache compares runs where SGLang's compares tokens, and is exact.
"""

from itertools import count

__all__ = ["PageAligner", "Piece", "Pieces", "slice_pieces"]

Piece = tuple[int, int, int]
Pieces = list[Piece]


def slice_pieces(pieces: Pieces, start: int, stop: int) -> Pieces:
    """Tokens ``start:stop`` of a sequence."""
    if len(pieces) == 1:
        segment, offset, tokens = pieces[0]
        return [(segment, offset + start, min(stop, tokens) - start)] if start or stop < tokens else pieces
    cut: Pieces = []
    position = 0
    for segment, offset, tokens in pieces:
        if position >= stop:
            break
        first = max(start - position, 0)
        last = min(stop - position, tokens)
        if first < last:
            cut.append((segment, offset + first, last - first))
        position += tokens
    return cut


class PageAligner:
    """Cuts sequences into pieces whose lengths are whole pages, for a cache that shares only whole pages.

    A page that spans several segments becomes a segment of its own, one for each content; the incomplete last page is
    dropped.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._mixed_pages: dict[tuple[Piece, ...], int] = {}
        # Ids that no workload uses: prompts and answers count up from 0, shared content down from -1.
        self._fresh = count(1 << 48)

    def align(self, pieces: Pieces) -> Pieces:
        """The whole pages of a sequence."""
        page = self._page_size
        if page == 1:
            return pieces
        aligned: Pieces = []
        partial: list[Piece] = []
        missing = 0
        for segment, offset, tokens in pieces:
            if missing:
                taken = min(tokens, missing)
                partial.append((segment, offset, taken))
                offset, tokens, missing = offset + taken, tokens - taken, missing - taken
                if missing == 0:
                    aligned.append(self._mixed_page(partial))
                    partial = []
            whole = tokens - tokens % page
            if whole:
                aligned.append((segment, offset, whole))
            if tokens > whole:
                partial = [(segment, offset + whole, tokens - whole)]
                missing = page - (tokens - whole)
        return aligned

    def _mixed_page(self, partial: list[Piece]) -> Piece:
        key = tuple(partial)
        if key not in self._mixed_pages:
            self._mixed_pages[key] = next(self._fresh)
        return (self._mixed_pages[key], 0, self._page_size)
