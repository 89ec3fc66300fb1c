"""Which headers go through, in each direction."""

from collections.abc import Mapping

from live.upstream.head import HOP_BY_HOP, ResponseHead

__all__ = ["request_headers", "response_headers"]

_NOT_UP = HOP_BY_HOP | {"host", "content-length", "authorization", "x-api-key", "cookie", "expect", "accept-encoding"}
"""A client's key is the router's business and never the server's. Accept-Encoding goes, so that bodies come plain."""

_NOT_DOWN = HOP_BY_HOP | {"content-length", "server", "date", "set-cookie"}


def request_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a server gets of the client's headers."""
    dropped = _NOT_UP | _named(headers.get("Connection", ""))
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


def response_headers(head: ResponseHead, server_id: str) -> list[tuple[str, str]]:
    """What a client gets of the server's headers, and which server it was."""
    dropped = _NOT_DOWN | _named(head.header("connection"))
    kept = [(name, value) for name, value in head.headers if name.lower() not in dropped]
    return [*kept, ("X-Simroute-Server", server_id)]


def _named(connection: str) -> frozenset[str]:
    """The headers that a Connection header says concern this connection only."""
    return frozenset(name.strip().lower() for name in connection.split(",")) if connection else frozenset()
