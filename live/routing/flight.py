"""One request on its way through the router: its attempts, its timeouts, and its one end.

    queued --> sent --> answering --> done
      |  ^       |          |
      |  +-retry-+          +--> broken
      +--> refused, failed, cancelled

Until the first byte of an answer has come, a failed attempt is tried again elsewhere. After it the answer belongs to
the client, and a lost server breaks it.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from typing import Final

from live.backends import Backend, BackendError
from live.upstream.head import ResponseHead
from live.upstream.origin import Exchange
from policies import RequestView

from .air import Air, Client

__all__ = ["QUEUE_TIMEOUT", "Flight"]

QUEUE_TIMEOUT: Final = "no server had room in time"

_TRIED_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_KEPT_OF_AN_ERROR: Final = 300
_RETRY_AFTER_S: Final = 1.0
_LONGEST_RETRY_S: Final = 3600.0


class Flight:
    """A ``Job`` of the driver's and a ``Receiver`` of the answer. ``make_request`` gives the bytes for a server and a
    request id, which is new for each attempt."""

    __slots__ = (
        "_air",
        "_client",
        "_error",
        "_exchange",
        "_head",
        "_heard_at",
        "_make_request",
        "_over",
        "_rid",
        "_server_id",
        "_started",
        "_timer",
        "attempts",
        "dispatched_at",
        "request_id",
    )

    def __init__(
        self, air: Air, request_id: int, make_request: Callable[[Backend, str], bytes], client: Client
    ) -> None:
        self.request_id = request_id
        self.attempts = 0
        self.dispatched_at = 0.0
        self._air = air
        self._make_request = make_request
        self._client = client
        self._exchange: Exchange | None = None
        self._head: ResponseHead | None = None
        self._error = b""
        self._server_id = ""
        self._rid = ""
        self._started = False
        self._over = False
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def server_id(self) -> str:
        """Where it was sent last; empty before that."""
        return self._server_id

    @property
    def last_status(self) -> int | None:
        """Of the last attempt's answer, where one came."""
        return self._head.status if self._head is not None else None

    def depart(self, view: RequestView) -> None:
        """Hand the request to the router."""
        self._air.driver.arrive(view, self)
        self._wait_in_queue()

    def cancel(self) -> None:
        """The client is gone."""
        if not self._over:
            self._end()
            self._air.driver.cancel(self.request_id)

    def pause(self) -> None:
        """The client is slower than the server, whose silence is wanted until it has caught up."""
        if self._exchange is not None:
            self._clear_timer()
            self._exchange.pause()

    def resume(self) -> None:
        """It has caught up."""
        if self._exchange is not None:
            self._heard_at = self._air.loop.time()
            self._set_timer(self._air.timeouts.idle_s, self._on_silence)
            self._exchange.resume()

    # -- from the router (Job) -----------------------------------------------------------------------------------

    def dispatch(self, server_id: str, attempt: int) -> None:
        """See ``Job``."""
        air = self._air
        backend = air.fleet.members[server_id].backend
        self._server_id, self.attempts = server_id, attempt
        self._rid = uuid.uuid4().hex
        self._head, self._error = None, b""
        self.dispatched_at = air.driver.now()
        self._heard_at = air.loop.time()
        self._exchange = Exchange(backend.origin, self._make_request(backend, self._rid), self)
        self._exchange.start()
        air.fleet.sent(server_id)
        self._set_timer(air.timeouts.first_byte_s, self._on_silence)

    def refuse(self, reason: str) -> None:
        """See ``Job``."""
        self._end()
        self._client.on_refused(reason)

    def fail(self, reason: str) -> None:
        """See ``Job``."""
        self._end()
        (self._client.on_broken if self._started else self._client.on_failed)(reason)

    def abort(self, server_id: str) -> None:
        """See ``Job``."""
        self._drop()

    # -- from the server (Receiver) ------------------------------------------------------------------------------

    def on_head(self, head: ResponseHead) -> None:
        """See ``Receiver``."""
        self._head = head
        if head.status not in _TRIED_AGAIN and head.status != 200:
            self._start()

    def on_body(self, data: bytes) -> None:
        """See ``Receiver``."""
        air = self._air
        self._heard_at = air.loop.time()
        try:
            if not self._started and not self._may_start(data):
                return
            self._client.on_data(data)
        except BackendError as error:
            self._break_off(f"garbage from the server: {error}")

    def on_end(self) -> None:
        """See ``Receiver``."""
        self._exchange = None
        head = self._head
        assert head is not None
        if head.status == 429 and self._air.fleet.has_limit(self._server_id):
            self._limited(head)
            return
        if head.status in _TRIED_AGAIN:
            told = self._error[:_KEPT_OF_AN_ERROR].decode("utf-8", "replace").strip()
            self._attempt_failed(f"{self._server_id} answers {head.status}: {told}")
            return
        if not self._started:
            self._start()
        air, reason = self._air, self._client.on_done()
        self._end()
        if reason is not None:
            air.driver.failure(self.request_id, reason, retry=False)
            return
        air.fleet.succeeded(self._server_id)
        air.driver.finish(self.request_id)

    def on_lost(self, reason: str) -> None:
        """See ``Receiver``."""
        self._exchange = None
        self._attempt_failed(f"{self._server_id}: {reason}")

    # -- an attempt ----------------------------------------------------------------------------------------------

    def _may_start(self, data: bytes) -> bool:
        head, backend = self._head, self._air.fleet.members[self._server_id].backend
        assert head is not None
        if head.status in _TRIED_AGAIN:
            self._error += data[: _KEPT_OF_AN_ERROR - len(self._error)]
            return False
        refusal = backend.refusal_in_stream(data)
        if refusal is not None:
            self._drop()
            self._attempt_failed(f"{self._server_id}: {refusal}")
            return False
        self._start()
        self._air.driver.first_token(self.request_id)
        return True

    def _start(self) -> None:
        head = self._head
        assert head is not None
        self._started = True
        self._client.on_start(self._server_id, head)
        self._set_timer(self._air.timeouts.idle_s, self._on_silence)

    def _limited(self, head: ResponseHead) -> None:
        """Sent back for the server's rate limit: wait on at the router, as if it had been closed."""
        air = self._air
        self._clear_timer()
        air.fleet.succeeded(self._server_id)
        air.fleet.limited(self._server_id, self.request_id, _retry_after_s(head))
        self._wait_in_queue()

    def _attempt_failed(self, reason: str) -> None:
        """Before the first byte: tell the router after the backoff, so that until then the place at the server stays
        taken."""
        air = self._air
        air.fleet.failed(self._server_id)
        if self._started:
            air.driver.failure(self.request_id, reason, retry=False)
            return
        wait_s = air.timeouts.backoff_s * 1.5 ** (self.attempts - 1) * air.rng.uniform(0.8, 1.2)
        self._clear_timer()
        self._timer = air.loop.call_later(wait_s, self._on_backed_off, reason)

    def _on_backed_off(self, reason: str) -> None:
        self._timer = None
        self._air.driver.failure(self.request_id, reason, retry=True)
        if not self._over and self._exchange is None:
            self._wait_in_queue()

    def _break_off(self, reason: str) -> None:
        self._drop()
        self._attempt_failed(f"{self._server_id}: {reason}")

    def _drop(self) -> None:
        """Close the connection, and tell the server not to go on."""
        if self._exchange is not None:
            self._exchange.cancel()
            self._exchange = None
            member = self._air.fleet.members.get(self._server_id)
            if member is not None:
                self._air.abort(member.backend, self._rid)

    # -- time ----------------------------------------------------------------------------------------------------

    def _wait_in_queue(self) -> None:
        if self._exchange is None and not self._over and self._timer is None:
            self._set_timer(self._air.timeouts.queue_s, self._on_queue_timeout)

    def _on_queue_timeout(self) -> None:
        self._end()
        self._air.driver.cancel(self.request_id)
        self._client.on_refused(QUEUE_TIMEOUT)

    def _on_silence(self) -> None:
        """Nothing was heard for long, unless something was since the timer was set."""
        timeouts = self._air.timeouts
        limit_s = timeouts.idle_s if self._started else timeouts.first_byte_s
        assert limit_s is not None
        left_s = self._heard_at + limit_s - self._air.loop.time()
        if left_s > 0:
            self._timer = self._air.loop.call_later(left_s, self._on_silence)
            return
        self._timer = None
        self._break_off(f"no byte for {limit_s:g} s")

    def _set_timer(self, delay_s: float | None, callback: Callable[[], None]) -> None:
        self._clear_timer()
        if delay_s is not None:
            self._timer = self._air.loop.call_later(delay_s, callback)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._over = True
        self._clear_timer()


def _retry_after_s(head: ResponseHead) -> float:
    """How long a server that answers 429 wants to be left alone, in seconds: OpenAI's header in ms, else the standard
    one. A second where there is none that is a number."""
    for name, unit_s in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        with contextlib.suppress(ValueError):
            wait_s = float(head.header(name)) * unit_s
            if 0 <= wait_s < _LONGEST_RETRY_S:
                return wait_s
    return _RETRY_AFTER_S
