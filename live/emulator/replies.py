"""The shapes of SGLang's answers."""

import json
import time
from abc import ABC, abstractmethod
from typing import Any

from .engine import Generation
from .tokens import text_of

__all__ = ["DONE", "EMULATOR", "ChatFormat", "CompletionFormat", "Format", "GenerateFormat", "event"]

DONE = b"data: [DONE]\n\n"
EMULATOR = "simroute-emulator"
"""In every answer: no model has generated it."""

Document = dict[str, Any]


def event(document: Document) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


class Format(ABC):
    """How one endpoint writes a generation down. Each piece of a stream brings the tokens ``start:stop`` of the answer;
    ``finish`` is the finish reason's type with the last one."""

    def __init__(self, generation: Generation, model: str) -> None:
        self.generation = generation
        self.model = model
        self._texts = [text_of(token) for token in generation.answer.tolist()]

    def text(self, start: int, stop: int) -> str:
        """That part of the answer."""
        return "".join(self._texts[start:stop])

    @abstractmethod
    def piece(self, start: int, stop: int, finish: str | None, e2e_s: float) -> bytes:
        """A stream's event or events."""

    @abstractmethod
    def whole(self, finish: str, e2e_s: float) -> Document:
        """The answer to a request that does not stream."""

    @abstractmethod
    def failure(self, message: str, status: int) -> bytes:
        """What a stream says in place of an answer: its status is 200 by then."""

    def _usage(self) -> Document:
        request = self.generation.model_request
        prompt, completion = len(self.generation.prompt), self.generation.computed
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": request.cached_tokens if request else 0},
        }


class GenerateFormat(Format):
    """``/generate``: text and ids are those since the beginning, or with ``incremental`` those of the piece."""

    def __init__(self, generation: Generation, model: str, *, incremental: bool) -> None:
        super().__init__(generation, model)
        self._incremental = incremental

    def piece(self, start: int, stop: int, finish: str | None, e2e_s: float) -> bytes:
        return event(self._document(start if self._incremental else 0, stop, self._finish(finish, stop), e2e_s))

    def whole(self, finish: str, e2e_s: float) -> Document:
        stop = self.generation.computed
        return self._document(0, stop, self._finish(finish, stop), e2e_s)

    def failure(self, message: str, status: int) -> bytes:
        finish = {"type": "abort", "message": message, "status_code": status, "err_type": None}
        return event(self._document(0, 0, finish, 0.0))

    def _finish(self, finish: str | None, stop: int) -> Document | None:
        if finish is None:
            return None
        return {"type": finish, "length": stop} if finish == "length" else {"type": finish, "matched": 2}

    def _document(self, start: int, stop: int, finish: Document | None, e2e_s: float) -> Document:
        generation = self.generation
        request = generation.model_request
        meta: Document = {
            "id": generation.rid,
            "finish_reason": finish,
            "prompt_tokens": len(generation.prompt),
            "weight_version": "default",
            "num_retractions": request.retractions if request else 0,
            "completion_tokens": stop,
            "cached_tokens": request.cached_tokens if request else 0,
            "emulator": EMULATOR,
        }
        if finish is not None:
            meta["e2e_latency"] = e2e_s
            if request is not None and stop > 0:
                # As SGLang with --enable-metrics; the absolute times are of the emulator's own clock.
                meta["queue_time"] = request.started_at - request.ready_at
                meta["api_server_dispatch_finish_ts"] = request.ready_at
                meta["forward_entry_time"] = request.started_at
                meta["prefill_finished_time"] = request.first_token_at
        ids = generation.answer[start:stop].tolist()
        return {"text": self.text(start, stop), "output_ids": ids, "meta_info": meta}


class OpenAIFormat(Format):
    """What the two OpenAI endpoints share."""

    chunk_object: str
    whole_object: str

    def __init__(self, generation: Generation, model: str, *, include_usage: bool) -> None:
        super().__init__(generation, model)
        self._include_usage = include_usage
        self._created = int(time.time())

    @abstractmethod
    def _choice(self, text: str, finish: str | None, *, first: bool) -> Document: ...

    @abstractmethod
    def _whole_choice(self, text: str, finish: str) -> Document: ...

    def piece(self, start: int, stop: int, finish: str | None, e2e_s: float) -> bytes:
        choice = self._choice(self.text(start, stop), finish, first=start == 0)
        data = event(self._envelope(self.chunk_object, [choice]))
        if finish is not None and self._include_usage:
            data += event({**self._envelope(self.chunk_object, []), "usage": self._usage()})
        return data

    def whole(self, finish: str, e2e_s: float) -> Document:
        choice = self._whole_choice(self.text(0, self.generation.computed), finish)
        return {**self._envelope(self.whole_object, [choice]), "usage": self._usage()}

    def failure(self, message: str, status: int) -> bytes:
        return event({"error": {"object": "error", "message": message, "type": str(status), "code": status}})

    def _envelope(self, kind: str, choices: list[Document]) -> Document:
        return {
            "id": self.generation.rid,
            "object": kind,
            "created": self._created,
            "model": self.model,
            "system_fingerprint": EMULATOR,
            "choices": choices,
        }


class CompletionFormat(OpenAIFormat):
    """``/v1/completions``."""

    chunk_object = whole_object = "text_completion"

    def _choice(self, text: str, finish: str | None, *, first: bool) -> Document:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    def _whole_choice(self, text: str, finish: str) -> Document:
        return self._choice(text, finish, first=True)


class ChatFormat(OpenAIFormat):
    """``/v1/chat/completions``."""

    chunk_object = "chat.completion.chunk"
    whole_object = "chat.completion"

    def _choice(self, text: str, finish: str | None, *, first: bool) -> Document:
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}

    def _whole_choice(self, text: str, finish: str) -> Document:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
