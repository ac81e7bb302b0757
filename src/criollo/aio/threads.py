"""Named thread pools: what may block leaves the loop through one of these, and the name says why.

`mounts` threads have a working directory of their own (CLONE_FS unshared), so that a mount may use short relative paths.
`fresh` is for code that enters another namespace: its thread ends afterwards and never returns to a pool.

`forsaken` is for what may hang for ever and is not worth waiting for: the only one that is left behind.

A thread cannot be cancelled. When the awaiting task is cancelled, the call goes on and the awaiter waits until it has
ended, so nothing works on behalf of nobody.
"""

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from criollo.aio.cleanup import cleanup
from criollo.errors import Exhausted
from criollo.linux import libc

P = ParamSpec("P")
T = TypeVar("T")
Descriptor = TypeVar("Descriptor", int, int | None)

_SIZES: Final = {"files": 8, "mounts": 4, "spawning": 4, "transfers": 12, "databases": 2}
_pools: dict[str, ThreadPoolExecutor] = {}


async def files(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Files, directories, `/proc`, `/sys`."""
    return await _run("files", functools.partial(function, *args, **kwargs))


async def handed_over(make: Callable[[], T], take_back: Callable[[T], Coroutine[Any, Any, object]]) -> T:
    """What `make` gives, in a `files` thread. An awaiter that was cancelled meanwhile cannot have it: it is taken back."""
    made: list[T] = []
    try:
        await files(lambda: made.append(make()))
    except asyncio.CancelledError:
        for each in made:
            await cleanup(take_back(each), what="what a cancelled caller wanted")
        raise
    return made[0]


async def descriptor(opened: Callable[[], Descriptor]) -> Descriptor:
    """The descriptor that `opened` gives in a `files` thread; a cancelled awaiter's is closed."""
    return await handed_over(opened, _close)


async def _close(fd: int | None) -> None:
    if fd is not None:
        await files(os.close, fd)


async def mounts(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Mounting and unmounting; the thread may change its working directory."""
    return await _run("mounts", functools.partial(function, *args, **kwargs))


async def spawning(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Starting child processes."""
    return await _run("spawning", functools.partial(function, *args, **kwargs))


async def transfers(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Registry traffic, which may take minutes."""
    return await _run("transfers", functools.partial(function, *args, **kwargs))


async def interruptible_transfer(function: Callable[[], T], interrupt: Callable[[], None]) -> T:
    """Registry traffic that `interrupt`, called once on the loop when the awaiter is cancelled, makes end promptly."""
    return await _run("transfers", function, interrupt)


async def databases(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Database work that may wait for another process or for the disk."""
    return await _run("databases", functools.partial(function, *args, **kwargs))


async def fresh(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread that ends with the call: for code that enters other namespaces.

    Raises:
        Exhausted: no thread can be started.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # handed over to the awaiter
            future.set_exception(error)

    _begin(work, "fresh")
    return await _until_done(asyncio.wrap_future(future))


async def forsaken(limit_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread of its own that may hang: after `limit_s`, or when the awaiter is cancelled, it is left behind.

    Only for what harms nobody when it goes on by itself, or never ends.

    Raises:
        TimeoutError: it was left behind.
        Exhausted: no thread can be started.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from here on nobody takes the place of its result away

    def work() -> None:
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # handed over to the awaiter
            future.set_exception(error)

    _begin(work, "forsaken")
    async with asyncio.timeout(limit_s):
        return await asyncio.wrap_future(future)


def close() -> None:
    """End all pools; waits for calls in progress."""
    for pool in _pools.values():
        pool.shutdown(wait=True, cancel_futures=True)
    _pools.clear()


async def _run(name: str, call: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
    pool = _pools.get(name)
    if pool is None:
        pool = _pools[name] = _Pool(
            _SIZES[name], thread_name_prefix=name, initializer=_own_directory if name == "mounts" else None
        )
    return await _until_done(asyncio.get_running_loop().run_in_executor(pool, call), interrupt)


class _Pool(ThreadPoolExecutor):
    """Where no further thread can be started, those that are there do the work; without any it is refused at once."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError as error:
            if not self._threads:
                self._work_queue.get_nowait()  # nothing else is in it: nobody works
                raise _no_thread(error) from error


def _begin(work: Callable[[], None], name: str) -> None:
    try:
        threading.Thread(target=work, name=name, daemon=True).start()
    except RuntimeError as error:
        raise _no_thread(error) from error


def _no_thread(error: RuntimeError) -> Exhausted:
    return Exhausted(
        f"cannot start a thread: {error}; raise TasksMax of the service, pids.max of its cgroup or kernel.threads-max"
    )


async def _until_done(future: "asyncio.Future[T]", interrupt: Callable[[], None] | None = None) -> T:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if interrupt is not None:
            interrupt()
        if not future.done():
            await _ignore_cancel(future)
        if not future.cancelled():
            future.exception()  # seen: the cancellation is what the awaiter hears
        raise


async def _ignore_cancel(future: "asyncio.Future[T]") -> None:
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])


def _own_directory() -> None:
    libc.unshare(libc.CLONE_FS)
    os.chdir("/")
