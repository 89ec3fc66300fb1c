"""The servers of a live run: connected, and described."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from live.backends import BACKENDS, Backend, BackendError, Facts
from live.routing.fleet import Member
from live.upstream.origin import Origin
from policies.ledger import ServerReport
from simcore.errors import UserError

__all__ = ["connected", "not_reported", "server_note"]


@asynccontextmanager
async def connected(
    urls: Sequence[str], kinds: Sequence[str], api_key: str | None, speed: float
) -> AsyncIterator[tuple[list[Backend], list[Facts]]]:
    """The servers, each asked who it is. Raises UserError where one cannot be reached or is of another kind."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        backends = [BACKENDS[kind](Origin(url), session, api_key) for url, kind in zip(urls, kinds, strict=True)]
        facts = []
        for backend in backends:
            try:
                facts.append(await backend.connect())
            except (aiohttp.ClientError, BackendError, OSError, TimeoutError) as error:
                detail = str(error) or "no answer in time"
                raise UserError(f"{backend.origin.url} cannot be used as a {backend.name} server: {detail}") from error
        if speed != 1.0 and any(fact.speed != speed for fact in facts):
            raise UserError(f"--speed {speed:g} is for emulators that run at that speed")
        yield backends, facts


def not_reported(backends: Sequence[Backend]) -> set[str]:
    """What a policy may ask of servers, and these do not tell."""
    reported = frozenset.intersection(*(backend.reports for backend in backends))
    return set(ServerReport._fields) - {"reported_at"} - reported


def server_note(member: Member) -> dict[str, Any]:
    """What ``live.json`` says of a server."""
    facts = member.facts
    return {
        "server_id": member.server_id,
        "url": member.backend.origin.url,
        "backend": member.backend.name,
        "model": facts.model,
        "version": facts.version,
        "emulator": facts.is_emulator,
        "reports": sorted(member.backend.reports),
    }
