"""What the router needs of a server, whatever kind it is."""

import json
from abc import ABC, abstractmethod
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp

from live.upstream.origin import Origin
from policies.ledger import ServerReport

__all__ = ["Backend", "BackendError", "Facts", "LiveRequest", "Reader", "number_of", "prometheus_sums"]


class BackendError(Exception):
    """A server did not answer a control request as its kind does."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself once; None for what its kind does not tell. ``extra`` is kind-specific."""

    model: str
    version: str | None = None
    max_running_requests: int | None = None
    kv_tokens_capacity: int | None = None
    is_emulator: bool = False
    speed: float = 1.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A generated request: the prompt's token ids, and how the answer ends. ``output_tokens`` is for emulators."""

    prompt: list[int]
    max_new_tokens: int
    output_tokens: int
    ignore_eos: bool
    model: str


class Reader(ABC):
    """Reads one streamed answer. After ``feed``: ``tokens`` generated so far, ``failure`` where the server gave up in
    the stream, ``meta`` what it said at the end, ``complete`` once the stream's own end mark was seen."""

    def __init__(self) -> None:
        self.tokens = 0
        self.output_ids: list[int] = []
        self.failure: str | None = None
        self.complete = False
        self.meta: dict[str, Any] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in bytes as they come. Raises BackendError for what is not the format."""
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            for line in event.splitlines():
                if line.startswith(b"data:"):
                    self._on_line(line[5:].strip())

    def _on_line(self, text: bytes) -> None:
        if text == b"[DONE]":
            self.complete = True
            return
        try:
            document = json.loads(text)
        except ValueError as error:
            raise BackendError(f"an event of the stream is not JSON: {text[:80]!r}") from error
        if not isinstance(document, dict):
            raise BackendError(f"an event of the stream is not an object: {text[:80]!r}")
        if told := document.get("error"):
            self.failure = str(told.get("message", told)) if isinstance(told, dict) else str(told)
            return
        self.on_event(document)

    @abstractmethod
    def on_event(self, document: dict[str, Any]) -> None:
        """One event of the stream that is not an error."""


class Backend(ABC):
    """One server. Control requests go through ``session``; ``headers`` carry the server's own key.

    paths       what clients may ask this kind for
    generate    where ``live_body`` goes
    reports     the ServerReport fields that it can give; ``connect`` narrows it to what this server does give
    wanted_model  which of the models that an OpenAI-compatible API offers; None: the first
    real_model  the model's name at the server, where clients have another one for it
    """

    name: ClassVar[str]
    paths: ClassVar[frozenset[str]]
    generate: ClassVar[str]
    pushes_caps: ClassVar[bool] = False

    def __init__(self, origin: Origin, session: aiohttp.ClientSession, api_key: str | None = None) -> None:
        self.origin = origin
        self.session = session
        self.headers: tuple[tuple[str, str], ...] = (("Authorization", f"Bearer {api_key}"),) if api_key else ()
        self.reports: frozenset[str] = frozenset()
        self.wanted_model: str | None = None
        self.real_model: str | None = None

    @abstractmethod
    async def connect(self) -> Facts:
        """Ask who it is. Raises BackendError and aiohttp.ClientError."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Whether it takes requests. Raises aiohttp.ClientError where it cannot be reached."""

    @abstractmethod
    async def load(self, now: float, wanted: Set[str]) -> ServerReport:
        """Its load as of ``now``. ``wanted``: the ServerReport fields that somebody decides on; those that cost the
        server more than the others are asked for only then. Raises BackendError and aiohttp.ClientError."""

    @abstractmethod
    def live_body(self, request: LiveRequest, rid: str) -> bytes:
        """A generated request's body, streaming."""

    @abstractmethod
    def reader(self) -> Reader:
        """For one streamed answer to a ``live_body``."""

    def with_real_model(self, body: bytes, parsed: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """The client's body, and what it says, with the server's own name of the model it asks for."""
        if self.real_model is None or "model" not in parsed:
            return body, parsed
        renamed = {**parsed, "model": self.real_model}
        return json.dumps(renamed).encode(), renamed

    def with_rid(self, body: bytes, parsed: dict[str, Any], rid: str) -> bytes:
        """The client's body with our request id in it, where the kind takes one."""
        return body

    async def abort(self, rid: str) -> None:
        """Stop a request whose client is gone. Closing its connection is all that most kinds know."""

    async def flush(self) -> None:
        """Empty the prefix cache, where the kind can. Raises BackendError where the server is busy."""

    async def set_cap(self, limit: int) -> None:
        """Push a run-time cap down. Raises BackendError where the server refuses."""
        raise BackendError(f"{self.name} servers have no run-time cap of their own")

    def refusal_in_stream(self, first: bytes) -> str | None:
        """The reason where a stream's first bytes say that the server takes no more, though its status was 200."""
        return None

    def error_event(self, reason: str) -> bytes:
        """What a client's stream gets when its server is lost."""
        error = {"message": reason, "type": "upstream_error", "code": 502}
        return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

    async def get_json(self, path: str) -> dict[str, Any]:
        """A control document. Raises BackendError and aiohttp.ClientError."""
        async with self.session.get(self.origin.url + path, headers=self.headers) as response:
            if response.status != 200:
                raise BackendError(f"{self.origin.url}{path} answers {response.status}")
            try:
                document = json.loads(await response.read())
            except ValueError as error:
                raise BackendError(f"{self.origin.url}{path} does not answer JSON") from error
        if not isinstance(document, dict):
            raise BackendError(f"{self.origin.url}{path} does not answer an object")
        return document

    async def get_text(self, path: str) -> str | None:
        """A document, None where the server has none there. Raises aiohttp.ClientError."""
        async with self.session.get(self.origin.url + path, headers=self.headers) as response:
            return await response.text() if response.status == 200 else None


def prometheus_sums(text: str, names: frozenset[str]) -> dict[str, float]:
    """Samples of these metrics, added up over their labels."""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in names:
            sums[name] = sums.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
    return sums


def number_of(document: dict[str, Any], key: str, where: str) -> int:
    """A whole number. Raises BackendError where it is not there."""
    value = document.get(key)
    if not isinstance(value, int | float):
        raise BackendError(f"{where} has no number {key!r}")
    return int(value)
