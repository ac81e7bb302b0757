"""Room held back for the databases: a file that is given up when the disk is full.

Removing images and containers makes room, but each removal is a row first; without this a full disk could not be emptied,
and a daemon could not start on it.
"""

import asyncio
import errno
import os
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.linux import files
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

BYTES: Final = 1 << 20  # some hundred transactions, and what a start writes
_EVERY_S: Final = 30


class Ballast:
    """The file at `path`, whose only content is its size."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def keep(self) -> None:
        """Hold the room, and again some time after it was needed; until cancelled."""
        told = ""
        while True:
            error = await threads.files(self.hold)
            cause = "" if error is None else error.strerror or str(error)
            if cause and cause != told:  # a disk may be full for days
                log.warning("no room held back for the databases", path=self._path, error=cause)
            told = cause
            await asyncio.sleep(_EVERY_S)

    def hold(self) -> OSError | None:
        """Make the file unless it is there; the error when there is no room for it. Blocking."""
        if self._path.exists():
            return None
        try:
            # What cannot be held is not taken for a moment from who writes now.
            if files.free_bytes(self._path.parent) < 2 * BYTES:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            self.release()
            return error
        return None

    def release(self) -> bool:
        """Give the room up; False when there is none."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
