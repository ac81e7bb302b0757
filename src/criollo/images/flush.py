"""When images reach the disk.

A pull is answered before that: its layers' rows name the boot, and when all is flushed, in the background, they no longer do.
A power cut in between is seen at the next start by rows of another boot: what they stand for is forgotten and pulled again
(`collect.sweep_layers`), so no layer with empty files is ever used, and nobody waits for the disk (decision 12). A daemon that
is killed loses nothing: the kernel has the files, and the next start of the same boot flushes them.

What cannot be fetched again, from an archive or a file, is answered when it is on the disk; where a layer of it was in a flush
that failed, it is answered with that, until the layer was written anew.
"""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from criollo.aio import threads
from criollo.errors import CriolloError, HostFailed
from criollo.state.images import ImageRows, LayerRow
from criollo.storage.layers import Layers
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

DOUBTFUL: Final = " doubtful"  # after the boot, of a layer that was in a flush that failed: it counts as cut in the next one


class Flush:
    """The layers that may not be on the disk yet, and what brings them there."""

    def __init__(self, rows: ImageRows, layers: Layers, *, boot: str) -> None:
        self._rows, self._layers, self._boot = rows, layers, boot
        self._wanted = asyncio.Event()
        self._turn = asyncio.Lock()
        # The kernel tells of a lost write once: the next flush proves nothing of these. A layer that was written anew since has
        # another row. Kept here too, because a disk that fails may not take the mark.
        self._failed: dict[str, LayerRow] = {}
        self.failures = 0  # what is written while it grows is in doubt, too: nobody else will hear of it

    def wake(self) -> None:
        """Flush soon."""
        self._wanted.set()

    async def now(self, layers: Collection[str] = ()) -> None:
        """Flush; what is here now survives a power cut, and so do these layers.

        Raises:
            CriolloError: the disk failed, now or earlier when one of the layers was written, or is too full to note it.
        """
        async with self._turn:  # of two at once only one would hear of a lost write
            await self._flush()
        doubtful = [name for name in layers if self._is_doubtful(name)]
        if doubtful:
            raise HostFailed(
                f"cannot say that {len(doubtful)} of {len(layers)} layers are on the disk: they were here before, and the disk "
                "failed as they were flushed; look at the disk, remove the images that have them, and load again"
            )

    async def _flush(self) -> None:
        names = self.waiting()
        rows = [row for row in self._rows.layers() if row.name in names]
        try:
            await self._layers.sync()
        except CriolloError as error:
            self.failures += 1
            self._doubt(names)
            log.error(
                "layers may be damaged", layers=len(names), error=error, remedy="look at the disk, then run crio check --repair"
            )
            raise
        self._rows.flushed(row.name for row in rows if self._rows.layer(row.name) is row)  # not one that came anew meanwhile
        await threads.databases(self._rows.flush)
        log.debug("images are on the disk", layers=len(names))

    def waiting(self) -> Collection[str]:
        """The layers of this boot that a flush is still to come for; it comes too late for those of another."""
        return {row.name for row in self._rows.layers() if row.boot == self._boot and not self._is_doubtful(row.name)}

    def settled(self, row: LayerRow, failures: int) -> LayerRow:
        """The row of a layer that was begun after so many `failures`."""
        return row if failures == self.failures else row._replace(boot=self._boot + DOUBTFUL)

    def _doubt(self, names: Collection[str]) -> None:
        """Mark layers for the rest of the boot, for a daemon that is started anew too."""
        rows = [row for row in map(self._rows.layer, names) if row is not None]
        self._failed.update((row.name, row) for row in rows)
        with contextlib.suppress(CriolloError):
            for row in rows:
                self._rows.add_layer(row._replace(boot=self._boot + DOUBTFUL))

    def _is_doubtful(self, name: str) -> bool:
        """Whether a layer was in a flush that failed, and is still the same."""
        row = self._rows.layer(name)
        return row is not None and (row.boot == self._boot + DOUBTFUL or self._failed.get(name) is row)

    async def follow(self) -> None:
        """Flush whenever something waits for it, also what an earlier process of this boot has left."""
        self.wake()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self.rest()

    async def rest(self) -> None:
        """Flush if something waits for it. What cannot be is told, and waits for the next time.

        Nothing is being flushed any more when it returns.
        """
        try:
            async with self._turn:
                if self.waiting():
                    await self._flush()
        except CriolloError as error:
            log.warning("images are not known to be on the disk", error=error)
