"""PullImage: a job per reference and credentials, from the manifest to one durable row.

Blobs are not stored: each streams from the registry through a pipe into a worker that unpacks it. Layers arrive in
parallel; both digests of each are checked before its directory gets its name; one syncfs comes before the row.
A pull that is cut keeps its finished layers for the next one; unfinished ones are staging directories without an owner.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from criollo.aio.jobs import Job
from criollo.aio.together import together
from criollo.errors import Invalid, TimedOut
from criollo.images import resolve
from criollo.images.commit import Blob, add_layer, leased, plan, record
from criollo.images.context import Images
from criollo.images.progress import LayerProgress, PullProgress
from criollo.model.container import ImageSpec
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    MAX_CONFIG_BYTES,
    Descriptor,
    Index,
    Manifest,
    decode_manifest,
)
from criollo.oci.platform import host_platform, select
from criollo.oci.reference import Reference
from criollo.registry.auth import Credentials
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

MAX_INDEX_DEPTH = 2


class Fetched(NamedTuple):
    """A manifest of this platform, with the reference as asked and the digests that lead to it."""

    reference: Reference
    manifest: Manifest
    raw: bytes
    digest: Digest
    digests: tuple[Digest, ...]  # of the index, if any, and of the manifest


async def pull_image(images: Images, spec: ImageSpec, credentials: Credentials | None = None) -> ImageId:
    """Pull an image unless it is whole already, and return its id.

    Raises:
        Invalid, Unsupported: reference, manifest or config is not what we can run; the message names the field.
        Denied: the signature policy refuses it.
        NotFound, Unauthenticated, Unavailable: the registry says so, or does not answer.
        Damaged: a blob is not what its digest says.
        Exhausted: the disk is full.
    Source: CRI v1, PullImage; OCI distribution-spec, section Pull.
    """
    ref = resolve.reference(images, spec.image)
    key = (str(ref), credentials)
    return await images.pulls.join(key, lambda job: _pull(images, job, ref, spec, credentials))


async def _pull(images: Images, job: Job[ImageId], ref: Reference, spec: ImageSpec, credentials: Credentials | None) -> ImageId:
    images.policy.judge(ref)
    progress = images.progress[str(ref)] = PullProgress(str(ref))
    try:
        job.stage("manifest")
        fetched = await _fetch_manifest(images, ref, credentials)
        job.stage("config")
        config = await _fetch_config(images, fetched, credentials)
        blobs = plan(fetched.manifest, config)
        job.stage("layers")
        with leased(images, [blob.name for blob in blobs]):
            async with _progress_limit(images, progress):
                await _fetch_layers(images, fetched.reference, blobs, credentials=credentials, progress=progress)
            job.stage("record")
            image = await record(images, _image(images, fetched, config, blobs, spec))
    except BaseException as error:
        progress.outcome = str(error) or type(error).__name__
        raise
    finally:
        images.progress.pop(str(ref), None)
    progress.outcome = "done"
    log.info("image pulled", image=image.id, reference=ref, digest=fetched.digest)
    return image.id


def _image(images: Images, fetched: Fetched, config: bytes, blobs: Sequence[Blob], spec: ImageSpec) -> Image:
    ref = fetched.reference
    return Image(
        id=ImageId(fetched.manifest.config.digest.hex),
        names=(str(ref),) if ref.tag and ref.digest is None else (),
        digests=tuple(f"{ref.name}@{digest}" for digest in fetched.digests),
        manifest_digest=str(fetched.digest),
        manifest=fetched.raw,
        config=config,
        layers=tuple(blob.name for blob in blobs),
        size_bytes=0,
        pulled_ns=images.clock(),
        annotations=spec.annotations,
    )


async def _fetch_manifest(images: Images, ref: Reference, credentials: Credentials | None) -> Fetched:
    digests: list[Digest] = []
    at = ref
    for _ in range(MAX_INDEX_DEPTH + 1):
        answer = await images.registry.manifest(at, credentials)
        digests.append(answer.digest)
        document = decode_manifest(answer.raw, answer.media_type)
        if isinstance(document, Manifest):
            return Fetched(ref, document, answer.raw, answer.digest, tuple(digests))
        at = ref.with_digest(_choose(images, document).digest)
    raise Invalid("manifest", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")


def _choose(images: Images, index: Index) -> Descriptor:
    platform = images.platform or host_platform()
    return select(platform, index.manifests)


async def _fetch_config(images: Images, fetched: Fetched, credentials: Credentials | None) -> bytes:
    """The config's exact bytes; from the local store when they are there."""
    descriptor = fetched.manifest.config
    known = images.rows.get(descriptor.digest.hex)
    if known is not None:
        return known.config
    if descriptor.size > MAX_CONFIG_BYTES:
        raise Invalid("manifest.config.size", descriptor.size, f"at most {MAX_CONFIG_BYTES} bytes")
    fd = os.memfd_create("config", os.MFD_CLOEXEC)
    try:
        await images.registry.blob(fetched.reference, descriptor, fd, credentials, progress=None)
        return os.pread(fd, MAX_CONFIG_BYTES + 1, 0)
    finally:
        os.close(fd)


async def _fetch_layers(
    images: Images,
    ref: Reference,
    blobs: Sequence[Blob],
    *,
    credentials: Credentials | None,
    progress: PullProgress,
) -> None:
    bars = {blob.name: LayerProgress(str(blob.descriptor.digest), blob.descriptor.size) for blob in blobs}
    progress.layers = list(bars.values())

    async def fetch(blob: Blob) -> None:
        bar = bars[blob.name]

        def arrived(count: int) -> None:
            progress.arrived(bar, count)

        async def feed(pipe_fd: int) -> None:
            bar.stage = "pulling"
            await images.registry.blob(ref, blob.descriptor, pipe_fd, credentials, progress=arrived)

        await add_layer(images, blob, feed)
        bar.stage, bar.done_bytes = "here", bar.size_bytes

    await together(fetch(blob) for blob in sorted(blobs, key=lambda blob: -blob.descriptor.size))


@contextlib.asynccontextmanager
async def _progress_limit(images: Images, progress: PullProgress) -> AsyncIterator[None]:
    """Cancel the block when no byte has arrived for `pull_progress_timeout`; 0 is no limit."""
    limit_s = images.progress_timeout_s
    if limit_s <= 0:
        yield
        return
    try:
        async with asyncio.timeout(limit_s) as limit, asyncio.TaskGroup() as group:
            task = group.create_task(_extend(limit, progress, limit_s))
            try:
                yield
            finally:
                task.cancel()
    except TimeoutError:
        raise TimedOut(f"cannot pull {progress.reference}: no byte arrived for {limit_s:g} s") from None


async def _extend(limit: asyncio.Timeout, progress: PullProgress, limit_s: float) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(limit_s / 10)
        limit.reschedule(loop.time() - (time.monotonic() - progress.changed_at) + limit_s)
