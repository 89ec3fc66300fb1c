"""What ends a run before its last request: Ctrl-C, a defect in a callback, and servers that are gone."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from live.routing.fleet import Fleet

from .generator import Generator

__all__ = ["stopping_on_errors", "stopping_on_interrupt", "stopping_on_silence"]

_LOOK_EVERY_S = 0.5


@contextmanager
def stopping_on_errors(generator: Generator) -> Iterator[list[BaseException]]:
    """Within the block what a callback raises, such as a policy's mistake, ends the generator; it is in the list then.

    Left to the loop it would be printed, and the run would wait for ever for the request that it was about.
    """
    errors: list[BaseException] = []
    loop = asyncio.get_running_loop()

    def stop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if (error := context.get("exception")) is None:
            loop.default_exception_handler(context)
            return
        errors.append(error)
        generator.done.set()

    before = loop.get_exception_handler()
    loop.set_exception_handler(stop)
    try:
        yield errors
    finally:
        loop.set_exception_handler(before)


@contextmanager
def stopping_on_interrupt(generator: Generator) -> Iterator[list[int]]:
    """Within the block Ctrl-C ends the generator; the list is not empty then. Only the main thread is told of it."""
    interrupted: list[int] = []

    def stop() -> None:
        interrupted.append(signal.SIGINT)
        generator.stop()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def stopping_on_silence(generator: Generator, fleet: Fleet, after_s: float) -> Iterator[list[str]]:
    """Within the block a model that no server has been ready for, for so long (wall clock), ends the generator; the
    list says which then. The router holds its requests meanwhile, as a server may come back."""
    silent: list[str] = []
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        heard_at = dict.fromkeys(fleet.models, loop.time())
        while not silent:
            await asyncio.sleep(_LOOK_EVERY_S)
            heard_at |= {member.facts.model: loop.time() for member in fleet.members.values() if member.ready}
            silent.extend(model for model, at in heard_at.items() if loop.time() - at > after_s)
        generator.stop()

    watcher = loop.create_task(watch())
    try:
        yield silent
    finally:
        watcher.cancel()
