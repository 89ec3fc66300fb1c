"""What the router wants to know of a request: read from its body, which goes on unchanged."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from policies import RequestView
from policies.predictors import RunningMean
from policies.views import PREFIX_BLOCK_TOKENS

__all__ = ["BadRequestError", "parse_body", "view_of"]

_BYTES_A_TOKEN = 4
"""Of English text, with today's tokenizers; only policies that weigh prompts see the estimate."""


class BadRequestError(Exception):
    """The client's mistake; the message is for the client."""


def parse_body(body: bytes) -> dict[str, Any]:
    """The body as an object. Raises BadRequestError."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise BadRequestError("the body is not a JSON object")
    return parsed


def view_of(
    request_id: int,
    model: str,
    parsed: Mapping[str, Any],
    headers: Mapping[str, str],
    now: float,
    expected: RunningMean,
    *,
    with_hashes: bool,
) -> RequestView:
    """The request as a policy may see it."""
    prompt = _prompt(parsed)
    session = headers.get("X-Session-Id") or parsed.get("routing_key")
    given = parsed.get("priority")
    priority = given if isinstance(given, int) else 0
    prompt_tokens = _tokens(prompt)
    return RequestView(
        request_id,
        model,
        prompt_tokens,
        _limited(parsed, expected.expected(prompt_tokens, priority)),
        now,
        _prefix_hashes(prompt) if with_hashes else (),
        _number(str(session).encode()) >> 1 if session else None,
        priority,
    )


def _prompt(parsed: Mapping[str, Any]) -> Any:
    for field in ("input_ids", "text", "prompt", "inputs", "messages"):
        if parsed.get(field):
            return parsed[field]
    return ""


def _tokens(prompt: Any) -> int:
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return len(prompt)
    return max(len(_as_bytes(prompt)) // _BYTES_A_TOKEN, 1)


def _as_bytes(prompt: Any) -> bytes:
    return prompt.encode() if isinstance(prompt, str) else json.dumps(prompt).encode()


def _limited(parsed: Mapping[str, Any], tokens: int) -> int:
    """No more than the client allows."""
    for holder in (parsed, parsed.get("sampling_params"), parsed.get("parameters")):
        if isinstance(holder, Mapping):
            for field in ("max_new_tokens", "max_completion_tokens", "max_tokens"):
                limit = holder.get(field)
                if isinstance(limit, int) and limit >= 1:
                    return min(tokens, limit)
    return tokens


def _prefix_hashes(prompt: Any) -> tuple[int, ...]:
    """Chained over blocks of 64 tokens, of text by its bytes: equal exactly for equal beginnings."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        blocks = [
            json.dumps(prompt[start : start + PREFIX_BLOCK_TOKENS]).encode()
            for start in range(0, len(prompt) - PREFIX_BLOCK_TOKENS + 1, PREFIX_BLOCK_TOKENS)
        ]
    else:
        text, size = _as_bytes(prompt), PREFIX_BLOCK_TOKENS * _BYTES_A_TOKEN
        blocks = [text[start : start + size] for start in range(0, len(text) - size + 1, size)]
    hashes: list[int] = []
    chained = b""
    for block in blocks:
        chained = blake2b(chained + block, digest_size=8).digest()
        hashes.append(int.from_bytes(chained) >> 1)
    return tuple(hashes)


def _number(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest())
