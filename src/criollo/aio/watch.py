"""Know that directories changed: bursts of events become one.

An editor, a package manager or a DaemonSet writes several files at once, some in halves; a reader wants to look once,
when it is quiet. A directory that does not exist yet is waited for through its nearest existing ancestor.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.linux.inotify import IN_IGNORED, Inotify

QUIET_S: Final = 0.2
PATIENCE_S: Final = 2.0  # a directory that never rests is looked at this often


async def changes(
    directories: Sequence[Path], *, quiet_s: float = QUIET_S, patience_s: float = PATIENCE_S
) -> AsyncGenerator[None, None]:
    """Yield once when the watches stand, then after every burst of changes; never ends.

    The first yield lets the reader load what is there without a gap: changes after it are not lost. Close the iterator
    (`contextlib.aclosing`) to free its descriptor.

    Raises:
        OSError: no inotify instance or watch is left (fs.inotify.max_user_instances, max_user_watches).
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
