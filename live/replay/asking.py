"""One generated request: what it makes of the answer."""

from typing import TYPE_CHECKING

from live.backends import Reader
from live.routing.flight import Flight
from live.upstream.head import ResponseHead
from simcore.records import Status

if TYPE_CHECKING:
    from .generator import Generator

__all__ = ["Asking"]

_KEPT_OF_AN_ERROR = 300


class Asking:
    """A ``Client`` of one flight: times each token, and tells the generator of the end."""

    __slots__ = ("_error", "_generator", "_head", "_reader", "_server_id", "_token_at", "flight", "request_id")

    flight: Flight

    def __init__(self, generator: "Generator", request_id: int) -> None:
        self.request_id = request_id
        self._generator = generator
        self._server_id = ""
        self._head: ResponseHead | None = None
        self._reader: Reader | None = None
        self._error = b""
        self._token_at = 0.0

    def on_start(self, server_id: str, head: ResponseHead) -> None:
        """See ``Client``."""
        self._server_id, self._head = server_id, head
        if head.status == 200:
            self._reader = self._generator.air.fleet.members[server_id].backend.reader()

    def on_data(self, data: bytes) -> None:
        """See ``Client``."""
        reader, generator = self._reader, self._generator
        if reader is None:
            self._error += data[: _KEPT_OF_AN_ERROR - len(self._error)]
            return
        before = reader.tokens
        reader.feed(data)
        new = reader.tokens - before
        if new <= 0:
            return
        now = generator.clock.now
        if before == 0:
            generator.recorder.first_token_at[self.request_id] = now
            if new > 1:
                generator.books.gap(0.0, new - 1)
        else:
            generator.books.gap(now - self._token_at, new)
        self._token_at = now

    def on_done(self) -> str | None:
        """See ``Client``."""
        reader = self._reader
        if reader is None:
            assert self._head is not None
            told = self._error.decode("utf-8", "replace").strip()
            return f"{self._server_id} answers {self._head.status}: {told}"
        self._note(reader)
        if reader.failure is not None:
            return f"{self._server_id}: {reader.failure}"
        if not reader.complete or reader.tokens == 0:
            return f"{self._server_id}: the stream ended without its end mark after {reader.tokens} tokens"
        self._generator.finished(self.request_id, self._server_id, self._token_at, reader, self.flight)
        return None

    def on_broken(self, reason: str) -> None:
        """See ``Client``."""
        if self._reader is not None:
            self._note(self._reader)
        self._give_up("failed", reason)

    def on_refused(self, reason: str) -> None:
        """See ``Client``."""
        self._give_up("rejected", reason)

    def on_failed(self, reason: str) -> None:
        """See ``Client``."""
        self._give_up("failed", reason)

    def _note(self, reader: Reader) -> None:
        self._generator.recorder.output_tokens[self.request_id] = reader.tokens

    def _give_up(self, status: Status, reason: str) -> None:
        self._generator.gave_up(self.request_id, self._server_id, status, reason, self.flight)
