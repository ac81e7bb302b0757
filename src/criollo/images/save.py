"""Save images to files: an OCI layout directory, an `oci-archive` or a `docker-archive`.

Blobs are not kept after a pull, so layers are written anew from their directories, uncompressed and always the same for
the same tree. Where a layer's bytes differ from those it was built as, its diff id differs, and so does the id of the
saved image; content and config are the same (docs/decisions/0004).
"""

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from criollo.aio import threads
from criollo.aio.cleanup import cleanup
from criollo.errors import Invalid, NotFound, Unsupported, explain
from criollo.images.collect import leased
from criollo.images.context import Images
from criollo.images.layout import REF_NAME, Named, encode_manifest, synthesize
from criollo.images.resolve import match
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from criollo.oci.reference import Reference
from criollo.telemetry.log import get_logger
from criollo.workers.messages import Packed

log = get_logger(__name__)

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:/@-]{0,511}")  # of org.opencontainers.image.ref.name
FORMATS: Final = ("oci-archive", "docker-archive", "oci-dir")


class _Written(NamedTuple):
    """An image in the making: its layers' diff ids and sizes, and its new config."""

    names: tuple[str, ...]
    config: bytes
    sizes: tuple[int, ...]


async def save_images(images: Images, names: Sequence[str], path: Path, *, form: str, label: str = "") -> list[Named]:
    """Write images into one file or directory, which must not be there yet. An image has the name it is asked by, or all,
    or a single one has `label`: a tag, or a name.

    Raises:
        Invalid: unknown format, or the path exists.
        NotFound: no such image.
        Exhausted: the disk is full; nothing is left at `path`.
    """
    if form not in FORMATS:
        raise Invalid("format", form, " or ".join(FORMATS))
    if os.path.lexists(path):
        raise Invalid("path", str(path), "a path where nothing is yet")
    wanted = [_wanted(images, name) for name in names]
    if label:
        wanted = [_labelled(wanted, label, form)]
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        with explain(f"save to {path}"), leased(images, [layer for each in wanted for layer in each.image.layers]):
            for part in ("", "blobs", "blobs/sha256"):
                os.mkdir(temporary / part, 0o755)
            packed: dict[str, Packed] = {}
            written = [await _write_layers(images, each, temporary, packed) for each in wanted]
            await threads.files(_write_docker if form == "docker-archive" else _write_oci, temporary, written)
            if form == "oci-dir":
                os.rename(temporary, path)
            else:
                await _archive(images, temporary, path)
    finally:
        await cleanup(threads.files(files.remove_tree, temporary), what=f"{temporary}")
    return wanted


def _wanted(images: Images, text: str) -> Named:
    found = match(images, text)
    if found is None:
        raise NotFound("image", text, "kpod images lists those that are here")
    if found.image.is_artifact:
        raise Unsupported(f"cannot save {text}: it is an OCI artifact; push it to a registry instead")
    return Named(found.image, (found.name,) if found.name in found.image.names else found.image.names)


def _labelled(wanted: Sequence[Named], label: str, form: str) -> Named:
    if len(wanted) != 1:
        raise Invalid("name", label, "a name for one image, not for several")
    if form == "docker-archive":
        label = str(Reference.parse(label, field="name"))
    elif not _LABEL.fullmatch(label):
        raise Invalid("name", label, "a tag or a name: letters, digits and . _ - + : / @")
    return Named(wanted[0].image, (label,))


async def _write_layers(images: Images, wanted: Named, directory: Path, packed: dict[str, Packed]) -> _Written:
    """Write what `packed` does not have yet, and the image's config as it now must be."""
    for layer in wanted.image.layers:
        if layer not in packed:
            part = directory / f"blobs/sha256/.{layer}"
            packed[layer] = await _pack(images, images.layers.path(layer), part)
            os.rename(part, part.with_name(packed[layer].diff_id.removeprefix("sha256:")))
    written = [packed[layer] for layer in wanted.image.layers]
    diff_ids = [each.diff_id for each in written]
    config = wanted.image.config
    document: dict[str, Any] = msgspec.json.decode(config)
    if document["rootfs"]["diff_ids"] != diff_ids:
        document["rootfs"]["diff_ids"] = diff_ids
        config = msgspec.json.encode(document)
        log.info("saved image has layers of other bytes, so another id", image=wanted.image.id, saved=Digest.of(config).hex)
    return _Written(wanted.names, config, tuple(each.size_bytes for each in written))


async def _pack(images: Images, directory: Path, target: Path) -> Packed:
    """Write a directory as a tar file."""
    source = files.open_directory(directory)
    sink = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        async with images.workers.pack(source) as job:
            await threads.transfers(_drain, job.pipe_fd, sink)
            return await job.result()
    finally:
        os.close(source)
        os.close(sink)


def _drain(pipe_fd: int, sink: int) -> None:
    with explain("write an archive"):
        while os.splice(pipe_fd, sink, 1 << 20):
            pass


async def _archive(images: Images, directory: Path, path: Path) -> None:
    part = directory.with_name(f"{directory.name}.tar")
    try:
        await _pack(images, directory, part)
        os.rename(part, path)
    finally:
        part.unlink(missing_ok=True)


def _write_oci(directory: Path, written: Sequence[_Written]) -> None:
    entries = []
    for each in written:
        manifest = encode_manifest(synthesize(each.config, each.sizes), layer_type=OCI_LAYER)
        _write_blob(directory, each.config)
        _write_blob(directory, manifest)
        entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
        entries += [{**entry, "annotations": {REF_NAME: name}} for name in each.names] or [entry]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (directory / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(msgspec.json.encode(index))


def _write_docker(directory: Path, written: Sequence[_Written]) -> None:
    entries = []
    for each in written:
        config = Digest.of(each.config)
        (directory / f"{config.hex}.json").write_bytes(each.config)
        layers = [f"blobs/sha256/{layer.digest.hex}" for layer in synthesize(each.config).layers]
        entries.append({"Config": f"{config.hex}.json", "RepoTags": list(each.names), "Layers": layers})
    (directory / "manifest.json").write_bytes(msgspec.json.encode(entries))


def _write_blob(directory: Path, content: bytes) -> None:
    (directory / "blobs/sha256" / Digest.of(content).hex).write_bytes(content)
