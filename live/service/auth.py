"""Keys: who may ask, and who may change things."""

import hmac
from collections.abc import Sequence

from aiohttp import web

__all__ = ["Keys", "presented_key"]


def presented_key(request: web.Request) -> str:
    """``Authorization: Bearer KEY`` or ``X-API-Key: KEY``; empty where there is none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")


class Keys:
    """Compares in constant time, against every key that there is."""

    def __init__(self, clients: Sequence[str], admin: str | None) -> None:
        self._clients = [key.encode() for key in clients]
        self._admin = admin.encode() if admin else None

    def client_may(self, request: web.Request) -> bool:
        """Whether the request may be served."""
        if not self._clients:
            return True
        given = presented_key(request).encode()
        matches = [hmac.compare_digest(given, key) for key in self._clients]
        return any(matches)

    def admin_may(self, request: web.Request) -> bool:
        """Whether it may change things; never without an admin key."""
        return self._admin is not None and hmac.compare_digest(presented_key(request).encode(), self._admin)

    def may_look(self, request: web.Request) -> bool:
        """Whether it may see the dashboard's data: with the admin key, where there is one."""
        return self._admin is None or self.admin_may(request)
