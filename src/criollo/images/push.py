"""Push an image to a registry: what is there already is not sent, what is not is written anew from the layer's directory.

Blobs are not kept after a pull (docs/decisions/0004), so of each layer, in this order:

    the blob it came as is in the repository, or in another one there that this image came from     it is used as it is
    else the directory is packed and compressed by a worker into a file without a name              HEAD, then sent

When every layer is used as it came, the image keeps its digest. Else manifest and config are other documents, and so the
digest and the id are others; packing is deterministic, so a second push finds all that the first one sent.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.together import together
from criollo.errors import CriolloError, Denied, Invalid, explain
from criollo.images.artifacts import blob_path
from criollo.images.collect import leased
from criollo.images.context import Images
from criollo.images.history import descriptors
from criollo.images.progress import LayerProgress, Progress
from criollo.images.resolve import candidates
from criollo.images.tag import known
from criollo.images.workplace import anonymous
from criollo.linux import files
from criollo.model.image import Image
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    compression_of,
    decode_manifest,
)
from criollo.oci.reference import Reference
from criollo.registry.client import Shown
from criollo.registry.terms import USUAL, Terms, on_terms
from criollo.registry.uploads import BytesBody, FileBody, Uploads
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

FORMATS: Final = ("oci", "docker")
COMPRESSIONS: Final = ("gzip", "zstd", "none")
_AT_ONCE: Final = 3  # layers: each packs in a worker and takes a file
_SUFFIXES: Final = {"none": "", "gzip": "gzip", "zstd": "zstd"}


class PushWish(NamedTuple):
    """Where to, as whom, in which dress, and on which terms; an empty `form` is that of the image."""

    target: str
    shown: Shown = None
    form: str = ""
    compression: str = "gzip"
    terms: Terms = USUAL


class Pushed(NamedTuple):
    """What the registry has now. `anew` layers of `layers` had to be packed; `sent_bytes` went over the wire for blobs."""

    reference: Reference
    digest: Digest
    image_id: str
    layers: int
    anew: int
    sent_bytes: int


class _Blob(NamedTuple):
    """A layer in the registry."""

    media_type: str
    digest: Digest
    size: int
    diff_id: str
    anew: bool
    sent_bytes: int


class _Push(NamedTuple):
    """What the steps of one push share."""

    images: Images
    image: Image
    wish: PushWish
    form: str
    uploads: Uploads
    turn: asyncio.Semaphore


async def push_image(images: Images, name: str, wish: PushWish, progress: Progress | None = None) -> Pushed:
    """Push an image that is here, for its one platform, under a name with a tag.

    Raises:
        NotFound: no such image, or no such repository.
        Invalid: the target is no name with a tag, or format and compression do not go together.
        Forbidden: the registry forbids it, or the image has encrypted layers that would have to be sent in the clear.
        Unauthenticated, Unavailable: the registry says so, or does not answer.
        Exhausted: the disk is full.
    """
    image = known(images, name).image
    ref = target_of(images, wish.target)
    form, progress = _form(image, wish), progress or Progress(str(ref))
    with images.progress.shown(progress), leased(images, image.layers):
        async with on_terms(images.registry, wish.terms) as registry:
            uploads = Uploads(registry, ref, wish.shown, sources=_sources(image, ref))
            push = _Push(images, image, wish, form, uploads, asyncio.Semaphore(_AT_ONCE))
            pushed = await (_push_artifact if image.is_artifact else _push_layers)(push, ref, progress)
        progress.image = pushed.image_id
    log.info("image pushed", image=image.id, reference=ref, digest=pushed.digest, anew=pushed.anew)
    return pushed


def target_of(images: Images, text: str) -> Reference:
    """The name to push to. Raises Invalid."""
    ref = candidates(images, text)[0]
    if ref.digest is not None:
        raise Invalid("target", text, "a name with a tag; the digest comes from what is pushed")
    return ref


async def _push_layers(push: _Push, ref: Reference, progress: Progress) -> Pushed:
    image, origins = push.image, descriptors(push.image)
    places = [origins[at] if at < len(origins) else None for at in range(len(image.layers))]
    progress.layers = [
        LayerProgress(str(each.digest) if each else name, each.size if each else 0)
        for each, name in zip(places, image.layers, strict=True)
    ]
    blobs = await together(
        _push_layer(push, name, origin, bar) for name, origin, bar in zip(image.layers, places, progress.layers, strict=True)
    )
    config = _config(image, blobs)
    sent = sum(each.sent_bytes for each in blobs) + await _send_bytes(push.uploads, config)
    raw, media_type = _manifest(push, config, blobs)
    digest = await push.uploads.manifest(media_type, raw)
    return Pushed(ref, digest, Digest.of(config).hex, len(blobs), sum(each.anew for each in blobs), sent)


async def _push_layer(push: _Push, name: str, origin: Descriptor | None, bar: LayerProgress) -> _Blob:
    async with push.turn:
        row = push.images.rows.layer(name)
        if origin is not None and row is not None and await _is_there(push.uploads, origin):
            bar.stage, bar.done_bytes = "there", bar.size_bytes
            return _Blob(origin.media_type, origin.digest, origin.size, row.diff_id, anew=False, sent_bytes=0)
        if origin is not None and origin.media_type.endswith("+encrypted"):
            raise Denied(
                f"cannot push image {push.image.id[:12]}: layer {origin.digest} came encrypted, the registry does not have it, "
                "and it would be sent in the clear; copy it from where it came from"
            )
        return await _push_packed(push, name, bar)


async def _is_there(uploads: Uploads, origin: Descriptor) -> bool:
    """Whether the repository has the blob, if need be from another repository of the registry."""
    if origin.size <= 0:
        return False  # we made this descriptor ourselves, of an archive or an import
    size = await uploads.size_of(origin.digest)
    if size is None:
        return await uploads.mount(origin.digest)
    return size in (-1, origin.size)


async def _push_packed(push: _Push, name: str, bar: LayerProgress) -> _Blob:
    images, compression = push.images, push.wish.compression
    bar.stage = "packing"
    place = images.big_files or images.layers.root
    file = await threads.handed_over(lambda: anonymous(place), lambda file: threads.files(file.close))
    try:
        source = files.open_directory(images.layers.path(name))
        try:
            async with images.workers.pack(source, compression) as job:
                await threads.transfers(_drain, job.pipe_fd, file.fileno())
                packed = await job.result()
        finally:
            os.close(source)
        digest = Digest(packed.digest)
        bar.digest, bar.size_bytes, bar.stage = packed.digest, packed.blob_bytes, "pushing"
        sent = 0
        if await push.uploads.size_of(digest) is None and not await push.uploads.mount(digest):
            await push.uploads.send(digest, FileBody(file.fileno(), packed.blob_bytes, lambda count: _arrived(bar, count)))
            sent = packed.blob_bytes
        bar.stage, bar.done_bytes = "there", bar.size_bytes
        media_type = _layer_type(push.form, compression)
        return _Blob(media_type, digest, packed.blob_bytes, packed.diff_id, anew=True, sent_bytes=sent)
    finally:
        file.close()


async def _push_artifact(push: _Push, ref: Reference, progress: Progress) -> Pushed:
    """An artifact's blobs are here as they came, so it keeps its digest."""
    image = push.image
    manifest = decode_manifest(image.manifest, artifacts=True)
    if not isinstance(manifest, Manifest):
        raise Invalid("image", image.id, "a manifest")
    layers = {layer.digest: layer for layer in manifest.layers}
    progress.layers = [LayerProgress(str(each.digest), each.size) for each in layers.values()]

    async def push_blob(layer: Descriptor, bar: LayerProgress) -> int:
        async with push.turn:
            if await _is_there(push.uploads, layer):
                return 0
            bar.stage = "pushing"
            with explain(f"open blob {layer.digest}"):
                fd = os.open(blob_path(push.images, layer.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                await push.uploads.send(layer.digest, FileBody(fd, layer.size, lambda count: _arrived(bar, count)))
            finally:
                os.close(fd)
            return layer.size

    sent = await together(push_blob(layer, bar) for layer, bar in zip(layers.values(), progress.layers, strict=True))
    total = sum(sent) + await _send_bytes(push.uploads, image.config)
    digest = await push.uploads.manifest(manifest.media_type, image.manifest)
    return Pushed(ref, digest, image.id, len(sent), 0, total)


async def _send_bytes(uploads: Uploads, content: bytes) -> int:
    digest = Digest.of(content)
    if await uploads.size_of(digest) is not None:
        return 0
    await uploads.send(digest, BytesBody(content))
    return len(content)


def _sources(image: Image, ref: Reference) -> list[str]:
    """Repositories of the same registry that this image came from."""
    own = [Reference.parse(name) for name in (*image.digests, *image.names)]
    return [each.path for each in own if each.domain == ref.domain]


def _form(image: Image, wish: PushWish) -> str:
    """The kind of manifest to write. Raises Invalid."""
    if wish.form not in ("", *FORMATS):
        raise Invalid("format", wish.form, " or ".join(FORMATS))
    if wish.compression not in COMPRESSIONS:
        raise Invalid("compression", wish.compression, " or ".join(COMPRESSIONS))
    try:
        own = "docker" if decode_manifest(image.manifest, artifacts=True).media_type == DOCKER_MANIFEST else "oci"
    except CriolloError:
        own = "oci"
    form = wish.form or own
    if form == "docker" and wish.compression == "zstd":
        raise Invalid("compression", "zstd", "gzip or none for a manifest of docker's; or --format oci")
    return form


def _layer_type(form: str, compression: str) -> str:
    suffix = _SUFFIXES[compression]
    if form == "docker":
        return f"{DOCKER_LAYER}.{suffix}" if suffix else DOCKER_LAYER
    return f"{OCI_LAYER}+{suffix}" if suffix else OCI_LAYER


def _config(image: Image, blobs: Sequence[_Blob]) -> bytes:
    """The image's config; another document only where a layer's bytes are others."""
    diff_ids = [each.diff_id for each in blobs]
    document: dict[str, Any] = msgspec.json.decode(image.config)
    if document["rootfs"]["diff_ids"] == diff_ids:
        return image.config
    document["rootfs"]["diff_ids"] = diff_ids
    return msgspec.json.encode(document)


def _manifest(push: _Push, config: bytes, blobs: Sequence[_Blob]) -> tuple[bytes, str]:
    """The manifest's bytes and type: the image's own where it still says the truth."""
    own = decode_manifest(push.image.manifest)
    if not isinstance(own, Manifest):
        raise Invalid("image", push.image.id, "a manifest")
    media_type = DOCKER_MANIFEST if push.form == "docker" else OCI_MANIFEST
    if own.media_type == media_type and config == push.image.config and not any(each.anew for each in blobs):
        return push.image.manifest, media_type
    config_type = DOCKER_CONFIG if push.form == "docker" else OCI_CONFIG
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "digest": str(Digest.of(config)), "size": len(config)},
        "layers": [
            {"mediaType": _layer_type(push.form, _dress(each)), "digest": str(each.digest), "size": each.size} for each in blobs
        ],
    }
    if own.annotations and push.form == "oci":
        document["annotations"] = own.annotations
    return msgspec.json.encode(document), media_type


def _dress(blob: _Blob) -> str:
    """How a blob is compressed. Raises Unsupported for an encrypted one, whose keys only its own manifest has."""
    return compression_of(blob.media_type)


def _drain(pipe_fd: int, sink: int) -> None:
    with explain("write a layer that is pushed"):
        while os.splice(pipe_fd, sink, 1 << 20):
            pass


def _arrived(bar: LayerProgress, count: int) -> None:
    bar.done_bytes += count
