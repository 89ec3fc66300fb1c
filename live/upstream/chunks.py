"""Chunked transfer coding (RFC 9112, 7.1), taken apart as it comes."""

from .head import BadResponseError

__all__ = ["ChunkReader"]

_LONGEST_LINE = 4096
_SHORT_LINE = 9


class ChunkReader:
    """``feed`` returns the payload in what came; ``done`` once the last chunk and the trailers are in."""

    __slots__ = ("_in_trailers", "_left", "_line", "_skip", "done")

    def __init__(self) -> None:
        self.done = False
        self._left = 0
        self._skip = 0
        self._line = b""
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """Raises BadResponseError where it is not chunked coding, or goes on after its end."""
        if self._line:
            data, self._line = self._line + data, b""
        elif not (self._left or self._skip or self._in_trailers):
            # Nearly always one whole chunk comes by itself.
            head = data.find(b"\r\n")
            if 0 < head < _SHORT_LINE and data.endswith(b"\r\n") and len(data) == head + _size(data[:head]) + 4:
                payload = data[head + 2 : -2]
                if payload:
                    return payload
        pieces = []
        at, end = 0, len(data)
        while at < end:
            if self.done:
                raise BadResponseError(f"{end - at} bytes came after the end of the body")
            if self._left:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._skip = 0 if self._left else 2
            elif self._skip:
                at = self._skip_line_end(data, at)
            else:
                at = self._read_line(data, at)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_line_end(self, data: bytes, at: int) -> int:
        expected = b"\r\n"[2 - self._skip :]
        found = data[at : at + self._skip]
        if not expected.startswith(found):
            raise BadResponseError(f"a chunk is followed by {found!r}")
        self._skip -= len(found)
        return at + len(found)

    def _read_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at)
        if end < 0:
            self._line = data[at:]
            if len(self._line) > _LONGEST_LINE:
                raise BadResponseError("a chunk's size is not given")
            return len(data)
        line = data[at:end]
        if self._in_trailers:
            self.done = not line
        else:
            self._left = _size(line)
            self._in_trailers = self._left == 0
        return end + 2


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    try:
        size = int(digits, 16)
    except ValueError:
        size = -1
    if size < 0 or not digits.isalnum():
        raise BadResponseError(f"a chunk's size is given as {digits[:40]!r}")
    return size
