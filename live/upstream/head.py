"""Request and response heads of HTTP/1.1 (RFC 9112), as far as a proxy needs them."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["HOP_BY_HOP", "BadResponseError", "ResponseHead", "parse_head", "request_bytes"]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that concern one connection (RFC 9110, 7.6.1) and are never passed on."""


class BadResponseError(Exception):
    """What the server sent is not HTTP."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """``length`` is the body's where the head gives it; None: it comes in chunks, or ends with the connection."""

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None
    chunked: bool
    keep_alive: bool

    def header(self, name: str) -> str:
        """A header's value, by its name in lower case; empty where it is not there."""
        return next((value for key, value in self.headers if key.lower() == name), "")


def parse_head(head: bytes) -> ResponseHead:
    """Parse what comes before the empty line. Raises BadResponseError."""
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or len(code) != 3 or not code.isdecimal():
        raise BadResponseError(f"the answer begins with {head[:40]!r}, which is not HTTP/1.1")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadResponseError(f"the answer has the header line {line[:80]!r}")
        headers.append((name, value.strip()))
    return _framed(int(code), version, tuple(headers))


def _framed(status: int, version: str, headers: tuple[tuple[str, str], ...]) -> ResponseHead:
    found = {name.lower(): value for name, value in headers}
    connection = found.get("connection", "").lower()
    keep_alive = "close" not in connection if version == "HTTP/1.1" else "keep-alive" in connection
    chunked = found.get("transfer-encoding", "").lower().endswith("chunked")
    length: int | None = None
    if status < 200 or status in (204, 304):
        length, chunked = 0, False
    elif not chunked and "content-length" in found:
        if not found["content-length"].isdecimal():
            raise BadResponseError(f"the answer has Content-Length {found['content-length']!r}")
        length = int(found["content-length"])
    # Without either, the body ends with the connection.
    return ResponseHead(status, headers, length, chunked, keep_alive and (chunked or length is not None))


def request_bytes(method: str, path: str, host: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """A whole request. ``headers`` come without Host and Content-Length, and without line breaks in them."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
