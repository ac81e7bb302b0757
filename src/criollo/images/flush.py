"""When images reach the disk.

A pull is answered before that: its layers' rows name the boot, and when all is flushed, in the background, they no longer do.
A power cut in between is seen at the next start by rows of another boot: what they stand for is forgotten and pulled again
(`collect.sweep_layers`), so no layer with empty files is ever used, and nobody waits for the disk (decision 12). A daemon that
is killed loses nothing: the kernel has the files, and the next start of the same boot flushes them.

What cannot be fetched again, from an archive or a file, is answered when it is on the disk.
"""

import asyncio
from collections.abc import Collection

from criollo.aio import threads
from criollo.errors import CriolloError
from criollo.state.database import flush
from criollo.state.images import ImageRows
from criollo.storage.layers import Layers
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class Flush:
    """The layers that may not be on the disk yet, and what brings them there."""

    def __init__(self, rows: ImageRows, layers: Layers, *, boot: str) -> None:
        self._rows, self._layers, self._boot = rows, layers, boot
        self._wanted = asyncio.Event()
        self._failed: set[str] = set()  # the kernel tells of a lost write once: the next flush proves nothing of these

    def wake(self) -> None:
        """Flush soon."""
        self._wanted.set()

    async def now(self) -> None:
        """Flush; what is here now survives a power cut.

        Raises:
            CriolloError: the disk failed, or is too full to note it.
        """
        names = self.waiting()
        try:
            await self._layers.sync()
        except CriolloError as error:
            self._failed.update(names)
            log.error(
                "layers may be damaged", layers=len(names), error=error, remedy="look at the disk, then run crio check --repair"
            )
            raise
        self._rows.flushed(names)
        await threads.databases(flush, self._rows.path)

    def waiting(self) -> Collection[str]:
        """The layers of this boot that a flush is still to come for; it comes too late for those of another."""
        return {row.name for row in self._rows.layers() if row.boot == self._boot} - self._failed

    async def follow(self) -> None:
        """Flush whenever something waits for it, also what an earlier process of this boot has left."""
        self.wake()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.rest()

    async def rest(self) -> None:
        """Flush if something waits for it. What cannot be is told, and waits for the next time."""
        if not self.waiting():
            return
        try:
            await self.now()
        except CriolloError as error:
            log.warning("images are not known to be on the disk", error=error)
