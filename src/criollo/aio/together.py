"""Several coroutines at once, owned by the caller: until the first error, each to its end, or until the first is done."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from criollo.errors import CriolloError

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results, in order; the first error cancels the others and is raised as itself.

    Unlike a bare TaskGroup this raises one exception, not a group: callers map errors by class.
    """
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(part) for part in work)
    except ExceptionGroup as errors:  # not `except*`: Python before 3.11.4 wraps what is raised there in a group again
        raise _first(errors) from None
    return [task.result() for task in tasks]


async def all_through(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Each to its end, whatever becomes of the others; then the first CriolloError, with the further ones as notes."""
    errors: list[CriolloError] = []

    async def through(part: Coroutine[Any, Any, object]) -> None:
        try:
            await part
        except CriolloError as error:
            errors.append(error)

    await together(through(part) for part in work)
    if errors:
        for other in errors[1:]:
            errors[0].add_note(str(other))
        raise errors[0]


async def first(*work: Coroutine[Any, Any, object]) -> None:
    """Return when the first of them does; the others are cancelled, and what they raise at that is of no interest."""
    tasks = [asyncio.get_running_loop().create_task(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _ended(tasks)


async def _ended(tasks: Sequence[asyncio.Task[object]]) -> None:
    """Cancel them and wait until the last has ended, whoever cancels us meanwhile."""
    for task in tasks:
        task.cancel()
    cut: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cut = error
    for task in tasks:
        _ = task.cancelled() or task.exception()  # looked at, or the loop reports it as forgotten
    if cut is not None:
        raise cut


def _first(group: ExceptionGroup[Exception]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
