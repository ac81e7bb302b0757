"""What the daemon does for its stores beside serving: start files, a look after an unclean end, scrub, preloaded images.

marked       around everything: what the last time left, and at the end that this end was clean
recalled     before it serves: which images an earlier daemon preloaded, and so pinned
cared_for    while it serves: the loops

What few daemons do is imported where it is done: it is a MiB.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.config.settings import Settings
from criollo.daemon.markers import Last, Markers
from criollo.engine.opening import Engine
from criollo.errors import CriolloError
from criollo.images.collect import collect_layers
from criollo.telemetry.log import get_logger

if TYPE_CHECKING:
    from criollo.images.preload import Preload

log = get_logger(__name__)


@contextlib.asynccontextmanager
async def marked(settings: Settings) -> AsyncIterator[Last]:
    """Read what the last daemon left, and write at the end of the block that this one ended as it should.

    The files change only when the block was entered, so that a daemon that is refused changes none.
    """
    markers = Markers.of(settings)
    last = await threads.files(markers.read)
    store = await threads.descriptor(markers.open_store)
    try:
        yield last
        try:
            await threads.files(markers.end, store)
        except CriolloError as error:
            log.warning("the end of this daemon will count as an unclean one", error=error)
    finally:
        if store is not None:
            os.close(store)


@contextlib.asynccontextmanager
async def recalled(engine: Engine) -> AsyncIterator["Preload | None"]:
    """The preload directory with the pins of the last daemon, before anybody asks for images; None without one."""
    directory = engine.settings.care.preload_dir
    if not directory:
        yield None
        return
    from criollo.images.preload import Preload

    preload = Preload(engine.images, Path(directory))
    await preload.recall()
    yield preload


@contextlib.asynccontextmanager
async def cared_for(engine: Engine, last: Last, preload: "Preload | None") -> AsyncIterator[None]:
    """Do what the last end asks for, then run the loops for the block."""
    settings = engine.settings
    if last.upgraded and settings.internal_wipe:
        await _wipe_images(engine)
    try:
        await threads.files(Markers.of(settings).begin)
    except CriolloError as error:  # on a full disk, say: who shall make room, if not a daemon that runs?
        log.warning("what the next start reads of this one is not written", error=error)
    async with Background() as tasks:
        tasks.start(engine.scrub.run(), name="scrub")
        if preload is not None:
            tasks.start(preload.run(), name="preload images")
        if last.unclean and settings.internal_repair:
            tasks.start(_look_after(engine), name="check the stores after an unclean end")
        yield


async def _wipe_images(engine: Engine) -> None:
    """version_file_persist is of another minor version: images go, as its setting asks."""
    from criollo.images.check import label

    images = engine.images
    going = [image for image in images.rows.all() if not images.in_use(image.id)]
    for image in going:
        images.rows.remove(image.id)
        log.info("image removed after an upgrade, as version_file_persist asks", image=image.id, name=label(image))
    if going:
        await collect_layers(images, kept_s=0)


async def _look_after(engine: Engine) -> None:
    """After a power cut or a kill: records against directories, and what is missing pulled again."""
    from criollo.images.check import check_stores
    from criollo.images.repair import repair_stores

    log.info("the last daemon did not end as it should: checking the stores")
    try:
        report = await check_stores(engine.images, quick=True)
        if report.is_damaged:
            await repair_stores(engine.images, report)
    except CriolloError as error:
        log.error("stores not checked after an unclean end", error=error, remedy="run crio check")
        return
    log.info("stores checked", images=report.images, layers=report.layers, damaged=len(report.damaged), left=report.is_damaged)
