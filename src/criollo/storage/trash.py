"""What is removed goes to the trash by one rename and is deleted later, so that no request waits for a large tree.

    <root>/trash/<random>        whole trees, one per removal

Emptying never follows links, never enters a mount, copes with any depth and any number of files (`linux.tree`), and is
interrupted between two trees or at the next directory. What cannot be deleted stays and is tried again after a while: what was
missing may have been a descriptor.
"""

import asyncio
import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import CriolloError, explain
from criollo.linux import mount, tree
from criollo.linux.files import make_directory, opened_directory
from criollo.storage import subvolumes
from criollo.telemetry.log import get_logger
from criollo.telemetry.seldom import Seldom

log = get_logger(__name__)

RETRY_S: Final = 20.0
_SHOWN: Final = 3  # of the names that could not be removed


class Trash:
    """One per store root. `open` it, `put` trees in, and let `run` be somebody's task, or call `empty`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filled = asyncio.Event()
        self._emptying = asyncio.Lock()
        self._stop = False
        self._failures = Seldom()
        self._stuck: dict[str, float] = {}  # when to try again what could not be deleted (time.monotonic)

    def open(self) -> None:
        """Make the directory; what it holds from before is deleted by the next round, and may not be mounted. Blocking."""
        make_directory(self.path, 0o700)
        place = os.path.realpath(self.path)
        for left in mount.below(place):  # by a check of the driver that was killed
            if left != place:
                mount.unmount(left, detach=True)

    def put(self, directory: Path) -> bool:
        """Move a tree here, which takes it out of sight at once; False when it does not exist. Blocking.

        Raises:
            OSError: something is mounted on it, or it is on another file system.
        """
        try:
            os.rename(directory, self.path / f"{directory.name[:64]}.{secrets.token_hex(8)}")
        except FileNotFoundError:
            return False
        return True

    def wake(self) -> None:
        """Tell `run` that there is work."""
        self._filled.set()

    async def run(self) -> None:
        """Empty the trash whenever something was put into it, until cancelled; what resists again and again."""
        while True:
            is_done = True
            try:
                await self.empty()
            except CriolloError as error:
                is_done = False
                if times := self._failures.due():
                    log.warning("cannot empty the trash now; trying again", times=times, again_s=RETRY_S, error=error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if is_done and not self._stuck else RETRY_S):
                    await self._filled.wait()
            self._filled.clear()

    async def empty(self) -> None:
        """Delete what is in the trash, one tree after the other. Cancelling it stops soon; the rest stays."""
        async with self._emptying:
            self._stop = False
            try:
                await threads.files(self._empty_all)
            finally:
                self._stop = True

    def interrupt(self) -> None:
        """Make a deletion in progress stop at the next directory."""
        self._stop = True

    def _is_stopped(self) -> bool:
        return self._stop

    def _empty_all(self) -> None:
        with explain(f"empty {self.path}"), opened_directory(self.path) as scratch:
            while not self._is_stopped() and (name := self._next(scratch)):
                kept = subvolumes.destroy_below(scratch, name, self._is_stopped)
                kept += tree.remove(scratch, name, scratch, should_stop=self._is_stopped)
                if self._is_stopped():
                    break
                is_news = self._stuck.pop(name, None) is None
                if kept:
                    self._stuck[name] = time.monotonic() + RETRY_S
                    tell = log.warning if is_news else log.debug
                    first = "; ".join(kept[:_SHOWN])
                    tell("cannot remove everything; trying again", trash=self.path, count=len(kept), first=first)

    def _next(self, scratch: int) -> str:
        """Something to delete; empty when there is nothing whose time has come."""
        names, now = os.listdir(scratch), time.monotonic()
        self._stuck = {name: due for name, due in self._stuck.items() if name in names}
        return next((name for name in names if self._stuck.get(name, now) <= now), "")
