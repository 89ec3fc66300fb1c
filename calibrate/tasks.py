"""Work that goes on beside other work, and ends with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

__all__ = ["all_of", "meanwhile"]

_Found = TypeVar("_Found")


@asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, _Found]) -> AsyncIterator["asyncio.Task[_Found]"]:
    """A task beside the block, which it does not outlive: also where the campaign's time is over in mid-probe."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def all_of(work: Iterable[Coroutine[Any, Any, _Found]]) -> list[_Found]:
    """All results; the first failure ends the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [task.result() for task in tasks]
