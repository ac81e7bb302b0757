"""Layers that nobody needs any more, and how those that somebody needs are kept.

A layer goes under its lock and only when no lease and no image has it, so a pull that wants it either finds it whole or
unpacks it anew. The directory goes before the row: a full disk, which stops the row, must not stop the directory, and a
row without a directory is damage that the next pull mends and the next round collects.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import TimedOut, Unavailable
from criollo.images import retired, seals
from criollo.images.context import Images
from criollo.images.flush import DOUBTFUL
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

KEPT_S: Final = 600  # how long a cut pull's finished layers wait for the next try: kubelet's longest pause is 300 s
_PASSING: Final = (Unavailable, TimedOut, asyncio.CancelledError)


@contextlib.contextmanager
def leased(images: Images, names: Sequence[str]) -> Iterator[None]:
    """Keep the layers from being collected while the block runs."""
    images.leases.update(names)
    try:
        yield
    finally:
        images.leases.subtract(names)
        for name in names:
            if images.leases[name] <= 0:
                del images.leases[name]


@contextlib.asynccontextmanager
async def assembling(images: Images, names: Sequence[str]) -> AsyncIterator[None]:
    """Lease layers for a block that makes an image of them.

    When it fails for a reason that may pass, the finished ones wait for the next try; else those that nobody needs go.
    """
    try:
        with leased(images, names):
            yield
    except _PASSING:
        raise
    except BaseException:
        await cleanup(_drop_all(images, names), what="layers of an image that failed")
        raise


async def drop_layers(images: Images, names: Iterable[str]) -> list[str]:
    """Remove those of the layers that nobody needs, however fresh they are; returns their names."""
    return await _drop_all(images, names)


async def collect_layers(images: Images, *, kept_s: float = KEPT_S) -> list[str]:
    """Remove the layers that no image and no running verb needs; returns their names.

    Those that a failed pull has finished stay for `kept_s` seconds after it had them.
    """
    ripe = time.monotonic() - kept_s
    finished = [name for name, each in images.finished.items() if each.at <= ripe]
    if await threads.files(retired.release, images):
        images.layers.trash.wake()
    return await _drop_all(images, [*images.rows.unreferenced_layers(), *finished])


async def sweep_layers(images: Images) -> None:
    """Bring rows and directories in line, at start: images that lost a layer, or have one that a power cut came before, are
    forgotten, so that they are pulled again; directories without a row go.

    Raises:
        CriolloError: a directory cannot be moved away, or a row not deleted.
    """
    for image in images.rows.all():
        lost = [name for name in image.layers if not images.layers.has(name) or _is_cut(images, name)]
        if lost:
            log.warning("image has lost layers; pull it again", image=image.id, names=",".join(image.names), lost=len(lost))
            images.rows.remove(image.id)
    await collect_layers(images)
    known = {row.name for row in images.rows.layers()} | set(images.finished) | set(images.leases)
    for name in images.layers.names() - known:
        await images.layers.remove(name)
    await threads.files(seals.sweep, images.layers, known)


def _is_cut(images: Images, name: str) -> bool:
    """Whether the node went down before the layer was flushed: see `flush`."""
    row = images.rows.layer(name)
    return row is not None and row.boot.removesuffix(DOUBTFUL) not in ("", images.boot)


async def _drop_all(images: Images, names: Iterable[str]) -> list[str]:
    return [name for name in names if await _drop(images, name)]


async def _drop(images: Images, name: str) -> bool:
    if images.leases[name]:
        return False
    async with images.layer_locks.hold(name):
        if images.leases[name] or images.rows.is_used(name):
            return False
        known = images.rows.layer(name) is not None
        if not known and name not in images.finished:
            return False
        await images.layers.remove(name)
        await threads.files(seals.remove, images.layers, [name])
        images.finished.pop(name, None)
        if known:
            images.rows.drop_layers([name])
    return True
