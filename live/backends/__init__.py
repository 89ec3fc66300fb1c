"""The kinds of servers there are: how each tells of itself, aborts a request, and writes its answers."""

from .base import Backend, BackendError, Facts, LiveRequest, Reader
from .openai import OpenAIBackend
from .sglang import SGLangBackend
from .tgi import TgiBackend

__all__ = ["BACKENDS", "Backend", "BackendError", "Facts", "LiveRequest", "Reader"]

BACKENDS: dict[str, type[Backend]] = {backend.name: backend for backend in (SGLangBackend, OpenAIBackend, TgiBackend)}
