"""What a client asks for, read from the bodies of SGLang's three generating endpoints."""

import json
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web

from .tokens import Tokens, tokens_of

__all__ = ["Ask", "BadAskError", "chat_ask", "completion_ask", "generate_ask", "read_json"]

OUTPUT_TOKENS = "simroute_output_tokens"
"""In ``sampling_params.custom_params``: how long the answer is, where it is shorter than asked for; there is no model
to end it."""


class BadAskError(Exception):
    """The client's mistake: status 400 and its message."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``output_tokens`` is how many the emulator will generate."""

    rid: str
    prompt: Tokens
    max_new_tokens: int
    output_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool = False


async def read_json(request: web.Request) -> dict[str, Any]:
    """The body as an object. Raises BadAskError."""
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise BadAskError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadAskError("the body is not a JSON object")
    return body


def generate_ask(body: dict[str, Any]) -> Ask:
    """``POST /generate``. Raises BadAskError."""
    sampling = body.get("sampling_params") or {}
    if not isinstance(sampling, dict):
        raise BadAskError("the emulator takes one request a call: sampling_params must be an object")
    given = body.get("input_ids") if body.get("input_ids") is not None else body.get("text")
    return _ask(body, _prompt(given), sampling, sampling.get("max_new_tokens", 128))


def completion_ask(body: dict[str, Any]) -> Ask:
    """``POST /v1/completions``. Raises BadAskError."""
    return _ask(body, _prompt(body.get("prompt")), body, body.get("max_tokens", 16))


def chat_ask(body: dict[str, Any]) -> Ask:
    """``POST /v1/chat/completions``. Raises BadAskError."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadAskError("messages must be a list that is not empty")
    text = "".join(f"{message.get('role')}: {json.dumps(message.get('content'))}\n" for message in messages)
    return _ask(body, tokens_of(text), body, body.get("max_completion_tokens", body.get("max_tokens", 128)))


def _prompt(given: Any) -> Tokens:
    if isinstance(given, str):
        return tokens_of(given)
    if isinstance(given, list) and given and all(isinstance(token, int) for token in given):
        return np.asarray(given, dtype=np.uint32)
    raise BadAskError("the emulator takes one prompt a call, as text or as a list of token ids")


def _ask(body: dict[str, Any], prompt: Tokens, sampling: dict[str, Any], max_new_tokens: Any) -> Ask:
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise BadAskError(f"max_new_tokens must be at least 1, got {max_new_tokens!r}")
    custom = sampling.get("custom_params") or {}
    return Ask(
        rid=str(body.get("rid") or uuid.uuid4().hex),
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        output_tokens=max(min(int(custom.get(OUTPUT_TOKENS, max_new_tokens)), max_new_tokens), 1),
        ignore_eos=bool(sampling.get("ignore_eos")),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )
