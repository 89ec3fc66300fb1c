"""The endpoints that generate."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

from aiohttp import web

from live.streams import StreamReply
from simcore.server.interface import QUEUE_IS_FULL

from .asks import Ask, BadAskError, chat_ask, completion_ask, generate_ask, read_json
from .engine import Engine, Generation
from .replies import DONE, ChatFormat, CompletionFormat, Format, GenerateFormat

__all__ = ["ABORTED", "Answering", "refusal"]

ABORTED = "Abort in waiting queue or while running"
_QUEUE_FULL = "The request queue is full."
_STREAM_HEADERS = (("Content-Type", "text/event-stream; charset=utf-8"),)


class Answering:
    """Serves one engine. ``under_way`` are the requests that ``/abort_request`` can find."""

    def __init__(self, engine: Engine, *, incremental: bool) -> None:
        self._engine = engine
        self._incremental = incremental
        self.requests = 0
        self.aborted = 0

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /generate``."""
        return await self._answer(request, generate_ask, self._generate_format)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``."""
        return await self._answer(request, completion_ask, self._completion_format)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        return await self._answer(request, chat_ask, self._chat_format)

    def abort(self, rid: str, *, everything: bool) -> None:
        """End requests whose rid begins with ``rid``, as SGLang matches them, or all."""
        for generation in self._engine.generations:
            if everything or generation.rid.startswith(rid):
                self._engine.cancel(generation)
                self.aborted += 1
                generation.on_end(ABORTED)

    async def _answer(
        self,
        request: web.Request,
        read: Callable[[dict[str, Any]], Ask],
        make_format: Callable[[Generation, Ask], Format],
    ) -> web.StreamResponse:
        self.requests += 1
        try:
            ask = read(await read_json(request))
            self._check_length(ask)
        except BadAskError as error:
            return refusal(400, str(error))
        if (wait_s := self._engine.limited_s()) > 0:
            return _too_many(wait_s / self._engine.clock.speed)
        answer = self._engine.draw_answer(ask.output_tokens)
        queue: _Tokens = _Tokens()
        generation = Generation(
            ask.rid, ask.prompt, answer, ask.max_new_tokens, ask.ignore_eos, queue.on_tokens, queue.on_end
        )
        form = make_format(generation, ask)
        finish = "length" if ask.output_tokens == ask.max_new_tokens else "stop"
        answered = self._stream if ask.stream else self._whole
        try:
            return await answered(request, generation, form, queue, finish)
        except asyncio.CancelledError:
            self._engine.cancel(generation)
            self.aborted += 1
            raise

    def _check_length(self, ask: Ask) -> None:
        limit = self._engine.member.max_prompt_tokens
        if len(ask.prompt) > limit:
            raise BadAskError(
                f"Input length ({len(ask.prompt)} tokens) exceeds the maximum allowed length ({limit} tokens)."
            )
        if len(ask.prompt) + ask.max_new_tokens > self._engine.member.max_request_tokens:
            limit = self._engine.member.max_request_tokens
            raise BadAskError(
                f"Requested token count exceeds the maximum context length of {limit} tokens: "
                f"{len(ask.prompt)} tokens of prompt and {ask.max_new_tokens} of answer"
            )

    async def _whole(
        self, request: web.Request, generation: Generation, form: Format, queue: "_Tokens", finish: str
    ) -> web.StreamResponse:
        self._engine.submit(generation)
        reason = await queue.end
        if reason is not None:
            return refusal(*_status_of(reason))
        return web.json_response(form.whole(finish, self._e2e_s(generation)))

    async def _stream(
        self, request: web.Request, generation: Generation, form: Format, queue: "_Tokens", finish: str
    ) -> web.StreamResponse:
        reply = StreamReply(request, 200, _STREAM_HEADERS, None)
        is_open, sent = False, 0

        def on_tokens(computed: int) -> None:
            nonlocal sent
            if is_open:
                reply.send(form.piece(sent, computed, None, 0.0))
                sent = computed

        generation.on_tokens = on_tokens
        # Before the head goes out, which may let another request in between.
        self._engine.submit(generation)
        await reply.open()
        is_open = True
        reason = await queue.end
        if reason is None:
            reply.send(form.piece(sent, generation.computed, finish, self._e2e_s(generation)) + DONE)
        else:
            status, message = _status_of(reason)
            reply.send(form.failure(message, status) + DONE)
        return await reply.end()

    def _e2e_s(self, generation: Generation) -> float:
        return self._engine.clock.now - generation.received_at

    def _generate_format(self, generation: Generation, ask: Ask) -> Format:
        return GenerateFormat(generation, self._engine.profile.model, incremental=self._incremental)

    def _completion_format(self, generation: Generation, ask: Ask) -> Format:
        return CompletionFormat(generation, self._engine.profile.model, include_usage=ask.include_usage)

    def _chat_format(self, generation: Generation, ask: Ask) -> Format:
        return ChatFormat(generation, self._engine.profile.model, include_usage=ask.include_usage)


class _Tokens:
    """Where a generation reports to: only its end is waited for."""

    def __init__(self) -> None:
        self.end: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def on_tokens(self, computed: int) -> None:
        """A request that does not stream has no use for them."""

    def on_end(self, reason: str | None) -> None:
        if not self.end.done():
            self.end.set_result(reason)


def refusal(status: int, message: str) -> web.Response:
    """An error as SGLang answers it."""
    kind = "BadRequestError" if status == 400 else "ServiceUnavailable"
    return web.json_response(
        {"error": {"object": "error", "message": message, "type": kind, "code": status}}, status=status
    )


def _too_many(wait_s: float) -> web.Response:
    """429 as OpenAI answers it, with the time to wait in seconds of the wall clock."""
    headers = {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": f"{wait_s * 1e3:.3f}"}
    message = f"Rate limit reached. Please try again in {wait_s:.3f}s."
    error = {"message": message, "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    return web.json_response({"error": error}, status=429, headers=headers)


def _status_of(reason: str) -> tuple[int, str]:
    return (503, _QUEUE_FULL) if reason == QUEUE_IS_FULL else (500, reason)
