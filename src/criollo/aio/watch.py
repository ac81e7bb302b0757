"""Know that directories changed: bursts of events become one.

An editor, a package manager or a DaemonSet writes several files at once, some in halves; a reader wants to look once,
when it is quiet. A directory that does not exist yet is waited for through its nearest existing ancestor.

Where the kernel gives no watches (fs.inotify.max_user_instances is 128 for all processes of root on many nodes), who reads is
sent to look every few seconds instead.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from criollo.aio import threads
from criollo.linux.inotify import IN_IGNORED, Inotify
from criollo.telemetry.log import get_logger

log = get_logger(__name__)
T = TypeVar("T")

QUIET_S: Final = 0.2
PATIENCE_S: Final = 2.0  # a directory that never rests is looked at this often
UNWATCHED_S: Final = 15.0  # between two looks where there are no watches


async def changes(
    directories: Sequence[Path], *, quiet_s: float = QUIET_S, patience_s: float = PATIENCE_S
) -> AsyncGenerator[None, None]:
    """Yield once when the watches stand, then after every burst of changes; never ends.

    The first yield lets the reader load what is there without a gap: changes after it are not lost. Close the iterator
    (`contextlib.aclosing`) to free its descriptor.
    """
    is_told = False
    while True:
        try:
            async with contextlib.aclosing(_watched(directories, quiet_s=quiet_s, patience_s=patience_s)) as rounds:
                async for _ in rounds:
                    is_told = False
                    yield
        except OSError as error:
            if not is_told:
                log.warning(
                    "directories cannot be watched; looking at them now and then",
                    directories=",".join(map(str, directories)),
                    every_s=UNWATCHED_S,
                    cause=error.strerror,
                    remedy="raise fs.inotify.max_user_instances and fs.inotify.max_user_watches",
                )
                is_told = True
        yield
        await asyncio.sleep(UNWATCHED_S)


async def _watched(directories: Sequence[Path], *, quiet_s: float, patience_s: float) -> AsyncGenerator[None, None]:
    """As `changes`.

    Raises:
        OSError: no inotify instance or watch is left.
    """
    watcher = Inotify()
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        watches = await threads.files(_arm, watcher, directories, frozenset())
        loop.add_reader(watcher.fd, woken.set)
        yield
        while True:
            await woken.wait()
            if not await _rest(watcher, woken, quiet_s=quiet_s, patience_s=patience_s):
                continue
            watches = await threads.files(_arm, watcher, directories, watches)  # what was made or replaced meanwhile
            yield
    finally:
        loop.remove_reader(watcher.fd)
        watcher.close()


async def _rest(watcher: Inotify, woken: asyncio.Event, *, quiet_s: float, patience_s: float) -> bool:
    """Swallow events until none came for `quiet_s`, at most for `patience_s`; whether something had changed."""
    loop = asyncio.get_running_loop()
    limit = loop.time() + patience_s
    changed = False
    while True:
        while events := watcher.read():
            changed = changed or any(event.mask & ~IN_IGNORED for event in events)
        woken.clear()
        try:
            async with asyncio.timeout_at(min(loop.time() + quiet_s, limit)):
                await woken.wait()
        except TimeoutError:
            return changed


def _arm(watcher: Inotify, directories: Sequence[Path], before: frozenset[int]) -> frozenset[int]:
    """Watch each directory, or the nearest ancestor that exists; end the watches of `before` that are not needed now."""
    watches = frozenset(_watch_nearest(watcher, directory) for directory in directories)
    for watch in before - watches:
        watcher.remove(watch)
    return watches


def _watch_nearest(watcher: Inotify, directory: Path) -> int:
    while True:
        for candidate in (directory, *directory.parents):
            try:
                watch = watcher.add(candidate)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if candidate == directory or not directory.is_dir():
                return watch
            break  # it was made between the two looks: watch itself


class Remembered(Generic[T]):
    """What `read` makes of directories, made again when they changed since.

    Nobody is told of changes: `get` looks whether there were any, which costs a system call and misses none, not even one
    of a moment ago. Where no watch is to be had it reads each time. For threads: blocking, safe to share.
    """

    def __init__(self, directories: Sequence[Path], read: Callable[[], T]) -> None:
        self._directories, self._read = directories, read
        self._lock = threading.Lock()
        self._watcher: Inotify | None = None
        self._watches: frozenset[int] = frozenset()
        self._known: list[T] = []
        self._is_closed = False

    def get(self) -> T:
        """What is there now; what `read` raises is raised, and it is read again next time."""
        with self._lock:
            if self._known and not self._changed():
                return self._known[0]
            self._known.clear()
            watched = self._watch()
            found = self._read()
            if watched:
                self._known.append(found)
            return found

    def close(self) -> None:
        """Let go of the watches for good: a thread that still holds this, and calls `get`, has it read each time."""
        with self._lock:
            self._is_closed = True
            self._known.clear()
            self._watches = frozenset()
            if self._watcher is not None:
                self._watcher.close()
                self._watcher = None

    def _changed(self) -> bool:
        assert self._watcher is not None
        found = False
        while events := self._watcher.read():
            found = found or any(event.mask & ~IN_IGNORED for event in events)
        return found

    def _watch(self) -> bool:
        """Stand before the first look, so that what happens in between is seen later."""
        if self._is_closed:
            return False
        try:
            self._watcher = self._watcher or Inotify()
            self._watches = _arm(self._watcher, self._directories, self._watches)
        except OSError:
            return False
        return True
