"""Async tests on a clock of their own: it jumps to the next timer as soon as nothing else is left to be done, so that
waiting takes no time and a busy machine draws nothing out."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import looptime

__all__ = ["run_fast_forward"]

T = TypeVar("T")

_LOOKS = 3
"""For data on sockets before the clock jumps: within one process it is there at once, or a moment later."""


def run_fast_forward(main: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``. What does not go by the event loop's clock, such as a thread or another process, is not
    waited for."""
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(noop_cycles=_LOOKS)) as runner:
        return runner.run(main)
