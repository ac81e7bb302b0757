"""PullImage: a job per reference and credentials, from the manifest to one row.

Blobs are not stored: each streams from the registry through a pipe into a worker that unpacks it. Layers arrive in
parallel; both digests of each are checked before its directory gets its name; the disk has them a little later.
A pull that is cut keeps its finished layers for the next one; unfinished ones are staging directories without an owner.
"""

import functools
import os
from collections.abc import Coroutine, Hashable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from criollo.aio import threads
from criollo.aio.jobs import Job
from criollo.aio.together import first, together
from criollo.errors import CriolloError, Damaged, Exhausted, HostFailed, Invalid, NotFound
from criollo.images import resolve
from criollo.images.artifacts import plan_blobs
from criollo.images.collect import assembling
from criollo.images.commit import Blob, add_layer, foreign_layer_missing, plan, record
from criollo.images.context import Images
from criollo.images.progress import LayerProgress, Progress
from criollo.images.signatures import Asked, prove
from criollo.model.container import ImageSpec
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.oci.artifact import artifact_id
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_CONFIG_BYTES, MAX_INDEX_DEPTH, Manifest, decode_manifest
from criollo.oci.platform import Platform, host_platform, select
from criollo.oci.reference import Reference
from criollo.registry import lifeline, namespaced
from criollo.registry.auth import Credentials
from criollo.registry.blobs import Route, WrongBlob
from criollo.registry.client import Registry, Shown
from criollo.registry.logins import Logins
from criollo.telemetry import hooks
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

T = TypeVar("T")


class Manner(NamedTuple):
    """What a person may say beside the name: the platform of an index (None: the node's), and a client that keeps to terms."""

    platform: Platform | None = None
    registry: Registry | None = None
    said: Hashable = ()  # tells one client from another


USUAL: Final = Manner()


class _Pull(NamedTuple):
    """What the steps of one pull share."""

    images: Images
    reference: Reference
    shown: Shown
    progress: Progress
    route: Route
    namespace: str = ""
    tentative: bool = False  # another meaning of the name follows
    manner: Manner = USUAL

    @property
    def registry(self) -> Registry:
        return self.manner.registry or self.images.registry


class _Fetched(NamedTuple):
    """A manifest of this platform, and the digests that lead to it: of the index, if any, and its own."""

    manifest: Manifest
    raw: bytes
    digests: tuple[Digest, ...]
    source: str


async def pull_image(
    images: Images,
    spec: ImageSpec,
    credentials: Credentials | None = None,
    *,
    namespace: str = "",
    manner: Manner = USUAL,
) -> ImageId:
    """Pull an image unless it is whole already, and return its id.

    A short name may mean several; the first that can be pulled counts, and only the first is shown the credentials. Without
    credentials, those that wait for an image of this `namespace` are used, if there are any (`registry.namespaced`).

    Raises:
        Invalid, Unsupported: reference, manifest or config is not what we can run; the message names the field.
        Denied: the signature policy refuses it.
        NotFound, Unauthenticated, Unavailable: the registry says so, or does not answer.
        TimedOut: no byte came for the time that the configuration gives a pull.
        Damaged: a blob is not what its digest says.
        Exhausted: the disk is full.
    Source: CRI v1, PullImage; OCI distribution-spec, section Pull.
    """
    refs = resolve.candidates(images, spec.image)
    waiting = None if credentials is not None else await _waiting(images, spec, namespace)
    failures: list[CriolloError] = []
    for ref in refs:
        shown = waiting if waiting is not None else credentials if ref is refs[0] else None
        try:
            policy = images.judge.policies.find(namespace)
            log.debug("Using pull policy path for image", image=ref, path=policy.source)
            images.judge.kinds_wanted(ref, namespace)  # what no signature can mend needs no question to a registry
            progress = Progress(str(ref))
            pull = _Pull(images, ref, shown, progress, Route(progress.came_from), namespace, ref is not refs[-1], manner)
            # Who is judged by another policy does not join, nor who asks in another manner.
            key = (str(ref), shown, policy.fingerprint, manner.platform, manner.said)
            return await images.pulls.join(key, functools.partial(_run, pull, spec=spec))
        except (Exhausted, HostFailed):
            raise
        except CriolloError as error:
            failures.append(error)
    for other in failures[:-1]:
        log.info("a meaning of a short name cannot be pulled", name=spec.image, error=other)
        failures[-1].add_note(str(other))
    raise failures[-1]


async def _waiting(images: Images, spec: ImageSpec, namespace: str) -> Logins | None:
    """The credentials that a provider left for this pull, or that the configuration has for this image alone."""
    if spec.image in images.own_logins:
        return images.own_logins[spec.image]
    if not namespace or images.namespaced_auth_dir is None:
        return None
    return await threads.files(namespaced.take, images.namespaced_auth_dir, namespace, spec.image)


async def _run(pull: _Pull, job: Job[ImageId], spec: ImageSpec) -> ImageId:
    images = pull.images
    pull.progress.job, job.trail.tentative = job, pull.tentative
    with images.progress.shown(pull.progress):
        fetched, proof, config = await _watched(pull, _fetch_documents(pull, job))
        blobs = plan_blobs(fetched.manifest) if fetched.manifest.artifact_type else plan(fetched.manifest, config)
        pull.progress.blobs = tuple(blob.name for blob in blobs)
        async with assembling(images, pull.progress.blobs):
            job.stage("layers")
            await _fetch_layers(pull, blobs)
            job.stage("record")
            image = _image(pull, fetched, config, blobs, spec)
            images.rows.signatures.keep(image.id, *proof, now_ns=images.clock())  # first: no image without them
            image = await record(images, image)
            images.flush.wake()
        pull.progress.image = image.id
    served = ",".join(sorted({layer.source for layer in pull.progress.layers if layer.source}))
    log.info(
        "image pulled",
        image=image.id,
        reference=pull.reference,
        digest=fetched.digests[-1],
        manifest_from=fetched.source,
        layers_from=served or "none fetched",
    )
    return image.id


async def _watched(pull: _Pull, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, unless no byte comes for `pull_progress_timeout`: then that is its end."""
    limit_s = pull.images.progress_timeout_s
    if limit_s <= 0:
        return await work
    given: list[T] = []

    async def through() -> None:
        given.append(await work)

    pull.progress.noticed()
    token = lifeline.arrived.set(pull.progress.noticed)
    try:
        await first(through(), pull.progress.watch(limit_s))
    finally:
        lifeline.arrived.reset(token)
        work.close()  # cancelled before it began, it would be reported as forgotten
    return given[0]


async def _fetch_documents(pull: _Pull, job: Job[ImageId]) -> tuple[_Fetched, tuple[Digest, Sequence[bytes]], bytes]:
    """The manifest of this platform, what proves where it comes from, and the config."""
    pull.progress.asks = True
    try:
        job.stage("manifest")
        fetched = await _fetch_manifest(pull)
        job.stage("signatures")
        asked = Asked(pull.reference, fetched.raw, fetched.source, pull.shown, pull.registry)
        proof = await prove(pull.images, asked, namespace=pull.namespace)
        job.stage("config")
        return fetched, proof, await _fetch_config(pull, fetched.manifest)
    finally:
        pull.progress.asks = False


def _image(pull: _Pull, fetched: _Fetched, config: bytes, blobs: Sequence[Blob], spec: ImageSpec) -> Image:
    ref = pull.reference
    return Image(
        id=ImageId(artifact_id(fetched.raw) if fetched.manifest.artifact_type else fetched.manifest.config.digest.hex),
        names=(str(ref),) if ref.digest is None else (),
        digests=tuple(f"{ref.name}@{digest}" for digest in fetched.digests),
        manifest_digest=str(Digest.of(fetched.raw) if fetched.manifest.artifact_type else fetched.digests[-1]),
        manifest=fetched.raw,
        config=config,
        layers=tuple(blob.name for blob in blobs),
        size_bytes=0,
        pulled_ns=pull.images.clock(),
        annotations=spec.annotations,
    )


async def _fetch_manifest(pull: _Pull) -> _Fetched:
    digests: list[Digest] = []
    at, source = pull.reference, pull.reference.name
    for _ in range(MAX_INDEX_DEPTH + 1):
        raw, media_type, digest, served_by = await _fetch_document(pull, at)
        digests.append(digest)
        source = served_by or source
        document = decode_manifest(raw, media_type, artifacts=True)
        if isinstance(document, Manifest):
            return _Fetched(document, raw, tuple(digests), source)
        wanted = pull.manner.platform or pull.images.platform or host_platform()
        at = pull.reference.with_digest(select(wanted, document.manifests).digest)
    raise Invalid("manifest", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")


async def _fetch_document(pull: _Pull, at: Reference) -> tuple[bytes, str, Digest, str]:
    """A manifest or index with its type, its digest and who served it; what an index points to may be here already."""
    if at.digest is not None and at is not pull.reference and (known := pull.images.rows.by_manifest(at.digest)) is not None:
        return known.manifest, "", at.digest, ""
    answer = await pull.registry.manifest(at, pull.shown)
    return answer.raw, answer.media_type, answer.digest, answer.source


async def _fetch_config(pull: _Pull, manifest: Manifest) -> bytes:
    """The config's exact bytes; from the local store when they are there."""
    descriptor = manifest.config
    known = pull.images.rows.get(descriptor.digest.hex)
    if known is not None and not known.is_artifact:
        return known.config
    if descriptor.size > MAX_CONFIG_BYTES:
        raise Invalid("manifest.config.size", descriptor.size, f"at most {MAX_CONFIG_BYTES} bytes")
    fd = os.memfd_create("config", os.MFD_CLOEXEC)
    try:
        while True:
            try:
                await pull.registry.blob(
                    pull.reference, descriptor, fd, pull.shown, progress=lambda _: pull.progress.noticed(), route=pull.route
                )
            except Damaged as error:
                if not pull.route.leave_out_mirrors_of(descriptor):
                    raise
                log.warning("mirror sent a wrong config, next one", image=pull.reference, error=error)
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            else:
                return os.pread(fd, descriptor.size, 0)
    finally:
        os.close(fd)


async def _fetch_layers(pull: _Pull, blobs: Sequence[Blob]) -> None:
    """All layers; anew without the mirrors that sent wrong bytes. What is finished stays."""
    while True:
        avoided = pull.route.avoided
        try:
            return await _fetch_at_once(pull, blobs)
        except CriolloError as error:
            if pull.route.avoided == avoided:
                raise
            log.warning("mirror sent a wrong layer, next one", image=pull.reference, error=error)


async def _fetch_at_once(pull: _Pull, blobs: Sequence[Blob]) -> None:
    """All layers at once, the largest first."""
    bars = {blob.name: LayerProgress(str(blob.descriptor.digest), blob.descriptor.size) for blob in blobs}
    pull.progress.layers = list(bars.values())
    ordered = sorted(blobs, key=lambda blob: -blob.descriptor.size)
    await _watched(pull, together(_fetch_layer(pull, blob, bars[blob.name]) for blob in ordered))


async def _fetch_layer(pull: _Pull, blob: Blob, bar: LayerProgress) -> None:
    def arrived(count: int) -> None:
        pull.progress.arrived(bar, count)

    async def feed(pipe_fd: int) -> None:
        bar.stage = "pulling"
        try:
            await pull.registry.blob(pull.reference, blob.descriptor, pipe_fd, pull.shown, progress=arrived, route=pull.route)
        finally:
            bar.stage = "unpacking"

    try:
        await add_layer(pull.images, blob, feed, source=pull.reference.domain)
    except Damaged as error:
        hosts = pull.route.hosts_of(blob.descriptor)
        pull.route.leave_out_mirrors_of(blob.descriptor)
        if not hosts or isinstance(error, WrongBlob):
            raise
        raise Damaged(f"cannot use layer {blob.descriptor.digest} from registry {hosts}: {error}") from error
    except NotFound as error:
        if blob.descriptor.is_foreign:
            raise foreign_layer_missing(blob.descriptor.digest) from error
        raise
    if hooks.metrics is not None and bar.stage == "unpacking":
        hooks.metrics.layer_pulled(blob.descriptor.media_type, blob.descriptor.size)
    elif hooks.metrics is not None:
        hooks.metrics.layer_reused(pull.reference.name, blob.descriptor.size)
    bar.stage, bar.done_bytes = "here", bar.size_bytes
