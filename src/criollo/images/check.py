"""`crio check`: records, directories and contents of images against each other; nothing is changed here.

    quick     documents against their digests, records against each other and against the directories that must be there
    full      also every file of every layer, against its seal and so against the layer's diff id (`workers.seal_check`)

A layer is leased while it is looked at. What is being pulled or removed meanwhile is nobody's damage: it is left out.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio import threads
from criollo.aio.together import together
from criollo.errors import CriolloError, Damaged, Invalid, explain
from criollo.images import seals
from criollo.images.artifacts import is_blob
from criollo.images.collect import drop_layers, leased
from criollo.images.commit import BLOB_FILE, plan
from criollo.images.context import Images
from criollo.model.care import DAMAGED, MISSING, UNCHECKED, ImageCheck, LayerCheck, Report
from criollo.model.ids import short
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Manifest, decode_manifest
from criollo.state.images import LayerRow
from criollo.state.integrity import findings as database_findings
from criollo.workers.messages import Verified, VerifyJob

AT_ONCE: Final = 2  # layers: more only make the disk seek


class Pace(NamedTuple):
    """How hard a check may work: bytes read in a second (0: no limit), and whether everybody else comes first."""

    bytes_per_s: int = 0
    idle: bool = False


class Scope(NamedTuple):
    """What a check looks at beside images: databases, and the containers that must have a writable layer."""

    databases: Sequence[Path] = ()
    containers: Sequence[str] = ()


async def check_stores(images: Images, *, quick: bool = False, scope: Scope | None = None) -> Report:
    """Look at everything once.

    Raises:
        HostFailed: a directory of ours cannot be read.
    """
    began = time.monotonic()
    scope = scope or Scope(databases=[images.rows.path])
    report = Report(quick=quick, images=len(images.rows.all()))
    with_roots = images.roots.ids() if scope.containers else set()  # at once: those that go later are nobody's damage
    report.containers = [each for each in scope.containers if each not in with_roots]
    for path in scope.databases:
        report.databases += await threads.databases(database_findings, path)
    for image in images.rows.all():
        if wrong := check_image(images, image):
            report.broken.append(ImageCheck(image=label(image), findings=wrong, containers=images.in_use(image.id)))
    await _check_layers(images, report)
    report.garbage = sorted(await threads.files(garbage, images))
    report.seconds = time.monotonic() - began
    return report


async def _check_layers(images: Images, report: Report) -> None:
    names = sorted({row.name for row in images.rows.layers()} | {name for image in images.rows.all() for name in image.layers})
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with places:
            found = await look(images, name, quick=report.quick)
        report.layers += 1
        if isinstance(found, Verified):
            report.checked += 1
            report.proven += found.proven
            report.size_bytes += found.size_bytes
        elif found is not None:
            (report.unchecked if found.state == UNCHECKED else report.damaged).append(found)

    await together(one(name) for name in names)


async def look(images: Images, name: str, *, quick: bool = False, pace: Pace | None = None) -> LayerCheck | Verified | None:
    """Look at one layer; None when a quick look finds nothing, or the layer went meanwhile."""
    with leased(images, [name]):
        found = await _look(images, name, quick, pace or Pace())
    if name not in images.finished:  # which waits for the next try of its pull
        await drop_layers(images, [name])  # its image may have been removed while we held it
    return found


async def _look(images: Images, name: str, quick: bool, pace: Pace) -> LayerCheck | Verified | None:
    is_there = await threads.files(images.layers.has, name)
    if not is_there or images.rows.layer(name) is None:  # what it is is known when who removes or pulls it now has ended
        async with images.layer_locks.hold(name):
            is_there = await threads.files(images.layers.has, name)
    row = images.rows.layer(name)
    if not is_there:
        if row is None and not images.rows.is_used(name):
            return None
        return told(images, name, MISSING, ["its directory is missing"])
    if row is None:
        if not images.rows.is_used(name):
            return None
        return told(images, name, DAMAGED, ["the database has no record of it"])
    if quick:
        return None
    try:
        found = await verify(images, row, pace)
    except (Damaged, Invalid) as error:
        return told(images, name, DAMAGED, [str(error)])
    if found is None:
        return told(images, name, UNCHECKED, ["it has no seal: an older version has pulled it"])
    return found if not found.damaged else told(images, name, DAMAGED, list(found.damage), found.damaged)


async def verify(images: Images, row: LayerRow, pace: Pace) -> Verified | None:
    """Hold a layer's tree against its seal, in a worker; None when it has no seal.

    Raises:
        Damaged: the seal is broken.
        CriolloError: it could not be looked at.
    """
    of_artifact = is_blob(row)
    job = VerifyJob(diff_id=row.diff_id, file=BLOB_FILE if of_artifact else "", bytes_per_s=pace.bytes_per_s, idle=pace.idle)
    async with _opened(images, row.name, sealed=not of_artifact) as fds:
        return None if fds is None else await images.workers.verify(*fds, job)


@contextlib.asynccontextmanager
async def _opened(images: Images, name: str, *, sealed: bool) -> AsyncIterator[tuple[int, int] | None]:
    """Descriptors of a layer's directory and of its seal; None without a seal."""
    with explain(f"open layer {name}"):
        path = images.layers.path(name)
        directory = await threads.descriptor(lambda: os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        seal = await threads.descriptor(lambda: seals.open_seal(images.layers, name)) if sealed else os.dup(directory)
        if seal is None:
            yield None
            return
        try:
            yield directory, seal
        finally:
            os.close(seal)
    finally:
        os.close(directory)


def check_image(images: Images, image: Image) -> list[str]:
    """What is wrong with an image's record."""
    found = []
    if not image.is_artifact and Digest.of(image.config).hex != image.id:
        found.append("its config is not what the image id says")
    if str(Digest.of(image.manifest)) != image.manifest_digest:
        found.append("its manifest is not what its digest says")
    found += [f"layer {name} has no record" for name in image.layers if images.rows.layer(name) is None]
    if not found and not image.is_artifact:
        try:
            manifest = decode_manifest(image.manifest)
            if not isinstance(manifest, Manifest):
                raise Invalid("manifest", "an index", "a manifest")
            expected = tuple(blob.name for blob in plan(manifest, image.config))
        except CriolloError as error:
            found.append(str(error))
        else:
            if expected != image.layers:
                found.append("its layers are not those that its config names")
    return found


def told(images: Images, name: str, state: str, findings: list[str], count: int = 0) -> LayerCheck:
    """A finding about a layer, with those who use it."""
    users = [image for image in images.rows.all() if name in image.layers]
    return LayerCheck(
        layer=name,
        state=state,
        findings=findings,
        count=count or len(findings),
        images=[label(image) for image in users],
        containers=sorted({container for image in users for container in images.in_use(image.id)}),
        unused=not users,
    )


def garbage(images: Images, *, age_s: float = 0) -> list[str]:
    """Directories of layers that nothing knows, unchanged for `age_s` seconds. Blocking."""
    limit = time.time() - age_s
    found = []
    for name in images.layers.names():
        with contextlib.suppress(FileNotFoundError):
            if not is_known(images, name) and images.layers.path(name).stat().st_ctime <= limit:
                found.append(name)
    return [name for name in found if not images.layer_locks.is_held(name)]


def is_known(images: Images, name: str) -> bool:
    """Whether a layer has a row, or something needs it that runs."""
    return images.rows.layer(name) is not None or name in images.finished or images.leases[name] > 0


def label(image: Image) -> str:
    """An image by a name, for a person; by its id where it has none."""
    return next(iter((*image.names, *image.digests)), short(image.id))
