"""The scrub: each layer held against its seal again and again, one at a time, slowly, for nobody's sake but the disk's.

The seal file's time of modification is when its layer was last looked at (or was written), so a restart goes on where the
last daemon stopped, and the layer that waited longest is next. What is found is told in the log and kept for `GET /scrub`
until the layer is whole again or gone; nothing is repaired by itself: `crio check --repair` does that.
"""

import asyncio
import time
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.cleanup import heed_cancel
from criollo.errors import CriolloError
from criollo.images import seals
from criollo.images.context import Images
from criollo.model.care import LayerCheck, Scrubbed
from criollo.telemetry.log import get_logger
from criollo.workers.messages import Verified

log = get_logger(__name__)

REST_S: Final = 60.0  # between two looks at what is due


class Plan(NamedTuple):
    """How hard and how often: bytes in a second, 0 for no scrub; seconds until a layer's turn comes again."""

    bytes_per_s: int
    every_s: float


class Scrub:
    """The scrub of one store; `run` it as a task, `report` at any time. Cancelling ends the worker at once."""

    def __init__(self, images: Images, plan: Plan, *, rest_s: float = REST_S) -> None:
        self._images, self._plan, self._rest_s = images, plan, rest_s
        self._found: dict[str, LayerCheck] = {}
        self._looked_ns: dict[str, int] = {}
        self._read_bytes = 0

    async def run(self) -> None:
        """Look at what is due, for ever; returns at once when there is no budget."""
        while self._plan.bytes_per_s:
            for name in await threads.files(self._due):
                await self._look(name)
                heed_cancel()
            await asyncio.sleep(self._rest_s)

    def report(self) -> Scrubbed:
        """How it stands. Layers that are gone are forgotten."""
        rows = {row.name for row in self._images.rows.layers()}
        for name in self._looked_ns.keys() - rows:
            self._looked_ns.pop(name)
            self._found.pop(name, None)
        return Scrubbed(
            enabled=bool(self._plan.bytes_per_s),
            bytes_per_s=self._plan.bytes_per_s,
            every_s=self._plan.every_s,
            layers=len(rows),
            looked_at=len(self._looked_ns),
            last_ns=max(self._looked_ns.values(), default=0),
            size_bytes=self._read_bytes,
            damaged=list(self._found.values()),
        )

    def _due(self) -> list[str]:
        """The layers whose turn it is, the one that waited longest first. A time in the future is a clock that was wrong."""
        now, waited = time.time(), {}
        for row in self._images.rows.layers():
            checked = seals.checked_at(self._images.layers, row.name)
            if checked is not None and not 0 <= now - checked < self._plan.every_s:
                waited[row.name] = now - checked
        return sorted(waited, key=lambda name: -waited[name])

    async def _look(self, name: str) -> None:
        from criollo.images.check import Pace, look  # few nodes scrub: not before the first

        try:
            found = await look(self._images, name, pace=Pace(self._plan.bytes_per_s, idle=True))
        except CriolloError as error:
            log.warning("layer not scrubbed; its turn comes again", layer=name, error=error)
            return
        self._looked_ns[name] = time.time_ns()
        await threads.files(seals.touch, self._images.layers, name)
        if isinstance(found, LayerCheck):
            if name not in self._found:
                log.error(
                    "layer is damaged",
                    layer=name,
                    images=",".join(found.images),
                    first=found.findings[0] if found.findings else "",
                    remedy="run crio check --repair",
                )
            self._found[name] = found
            return
        self._found.pop(name, None)
        if isinstance(found, Verified):
            self._read_bytes += found.size_bytes
            log.debug("layer scrubbed", layer=name, bytes=found.size_bytes, proven=found.proven)
