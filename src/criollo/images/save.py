"""Save images to files: an OCI layout directory, an `oci-archive`, a `docker-archive`, a `dir`.

Blobs are not kept after a pull, so layers are written anew from their directories, uncompressed and always the same for
the same tree. Where a layer's bytes differ from those it was built as, its diff id differs, and so does the id of the
saved image; content and config are the same (docs/decisions/0004).

An OCI layout that is there can be added to, which `kpod push` does; nothing else is written over.

What is written has its name only when it is whole and on the disk. Where the filesystem has files without a name, a save
that is killed leaves nothing of an archive; else, and of a directory, the next save of that name sweeps (`workplace`).
"""

import contextlib
import functools
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from criollo.aio import threads
from criollo.errors import Invalid, NotFound, Unsupported, explain
from criollo.images import originals, savedforms
from criollo.images.collect import leased
from criollo.images.context import Images
from criollo.images.layout import NamedImage, blob_path
from criollo.images.packed import pack_layer
from criollo.images.resolve import match
from criollo.images.savedforms import Written
from criollo.images.workplace import Workplace, anonymous, new_file, opened_workplace, taken
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_MANIFEST, Descriptor, Manifest, decode_manifest
from criollo.oci.reference import Reference
from criollo.telemetry.log import get_logger
from criollo.workers.messages import Packed

log = get_logger(__name__)

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:/@-]{0,511}")  # of org.opencontainers.image.ref.name
ARCHIVES: Final = ("oci-archive", "docker-archive")
DIRECTORIES: Final = ("oci-dir", "dir")
FORMATS: Final = (*ARCHIVES, *DIRECTORIES)


class Shape(NamedTuple):
    """How images are saved: the format, the tag or name that a single one gets instead of its own, and whether an
    OCI layout that is there gets one more."""

    form: str
    label: str = ""
    adds: bool = False


class _Tree(NamedTuple):
    """Images as a directory of the format."""

    place: Workplace
    path: Path
    written: list[Written]


async def save_images(images: Images, names: Sequence[str], path: Path, shape: Shape) -> list[NamedImage]:
    """Write images into one file or directory, which must not be there yet, unless the shape `adds`.

    An image has the name it is asked by, or all, or a single one has the label.

    Raises:
        Invalid: unknown format, or the path exists, or is no layout to add to.
        NotFound: no such image.
        Unavailable: somebody else adds to the layout.
        Exhausted: the disk is full; nothing is left at `path`.
    """
    wanted = _wanted_all(images, names, shape)
    if os.path.lexists(path):
        if shape.adds:
            return await _add(images, wanted, path, shape)
        raise taken(path)
    if shape.form in ARCHIVES:
        parent = images.big_files or path.parent
        async with _tree(images, wanted, shape, parent, path.name) as tree, new_file(path) as fd:
            await pack_layer(images, tree.path, fd)
        return wanted
    async with _tree(images, wanted, shape, path.parent, path.name) as tree:
        await threads.files(tree.place.publish, tree.path, path)
    if shape.form != "dir":
        return wanted
    return [each._replace(note=_note(images, each, done)) for each, done in zip(wanted, tree.written, strict=True)]


@contextlib.asynccontextmanager
async def archived(images: Images, names: Sequence[str], shape: Shape) -> AsyncIterator[int]:
    """A descriptor of the archive of images, at its beginning; the file goes with the block.

    Raises: as `save_images`.
    """
    wanted = _wanted_all(images, names, shape)
    if shape.form not in ARCHIVES:
        raise Invalid("format", shape.form, f"{' or '.join(ARCHIVES)}: a directory is no stream")
    parent = images.big_files or images.layers.root
    with contextlib.ExitStack() as opened:
        async with _tree(images, wanted, shape, parent, "save") as tree:
            file = await threads.handed_over(lambda: anonymous(parent), lambda file: threads.files(file.close))
            opened.enter_context(file)
            await pack_layer(images, tree.path, file.fileno())
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        yield file.fileno()


def _wanted_all(images: Images, names: Sequence[str], shape: Shape) -> list[NamedImage]:
    if shape.form not in FORMATS:
        raise Invalid("format", shape.form, " or ".join(FORMATS))
    wanted = [_wanted(images, name) for name in names]
    if shape.adds and (shape.form != "oci-dir" or len(wanted) != 1):
        raise Invalid("add", f"{len(wanted)} images as {shape.form}", "one image as oci-dir")
    if shape.form == "dir" and len(wanted) != 1:
        raise Invalid("image", list(names), "one image: a dir has no place for names")
    return [_labelled(wanted, shape)] if shape.label else wanted


def _wanted(images: Images, text: str) -> NamedImage:
    found = match(images, text)
    if found is None:
        raise NotFound("image", text, "kpod images lists those that are here")
    if found.image.is_artifact:
        raise Unsupported(f"cannot save {text}: it is an OCI artifact; push it to a registry instead")
    return NamedImage(found.image, (found.name,) if found.name in found.image.names else found.image.names)


def _labelled(wanted: Sequence[NamedImage], shape: Shape) -> NamedImage:
    label = shape.label
    if len(wanted) != 1:
        raise Invalid("name", label, "a name for one image, not for several")
    if shape.form == "dir":
        raise Invalid("name", label, "none: a dir has no place for names")
    if shape.form == "docker-archive":
        label = str(Reference.parse(label, field="name"))
    elif not _LABEL.fullmatch(label):
        raise Invalid("name", label, "a tag or a name: letters, digits and . _ - + : / @")
    return NamedImage(wanted[0].image, (label,))


@contextlib.asynccontextmanager
async def _tree(images: Images, wanted: Sequence[NamedImage], shape: Shape, parent: Path, name: str) -> AsyncIterator[_Tree]:
    """The images as a directory of the format, in a workplace below `parent`."""
    layers = [layer for each in wanted for layer in each.image.layers]
    async with opened_workplace(parent, name) as place:
        tree = place.path / "tree"
        with explain(f"save below {parent}"), leased(images, layers):
            for part in ("", "blobs", "blobs/sha256"):
                os.mkdir(tree / part, 0o755)
            written = await _write_all(images, wanted, tree, shape)
            await threads.files(savedforms.FORMS[shape.form], tree, written)
        yield _Tree(place, tree, written)


async def _write_all(images: Images, wanted: Sequence[NamedImage], tree: Path, shape: Shape) -> list[Written]:
    """Write blobs; a `dir` has a place for signatures, so there an image that has some is written as it came if that can be."""
    if shape.form == "dir" and originals.signatures_of(images, wanted[0].image):
        original = await originals.write_original(images, wanted[0].image, tree / "blobs/sha256")
        if original is not None:
            return [original]
    packed: dict[str, Packed] = {}
    return [await _write_layers(images, each, tree, packed) for each in wanted]


def _note(images: Images, wanted: NamedImage, written: Written) -> str:
    """What whoever saves should know."""
    lost = len(originals.signatures_of(images, wanted.image)) - len(written.signatures)
    if not lost:
        return ""
    return f"its signatures ({lost}) do not fit the layers as they are packed anew, and are left out; see kpod copy"


async def _write_layers(images: Images, wanted: NamedImage, directory: Path, packed: dict[str, Packed]) -> Written:
    """Write what `packed` does not have yet, and the image's config as it now must be."""
    for layer in wanted.image.layers:
        if layer not in packed:
            part = directory / f"blobs/sha256/.{layer}"
            sink = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                packed[layer] = await pack_layer(images, images.layers.path(layer), sink)
            finally:
                os.close(sink)
            os.rename(part, part.with_name(packed[layer].diff_id.removeprefix("sha256:")))
    written = [packed[layer] for layer in wanted.image.layers]
    diff_ids = [each.diff_id for each in written]
    config = wanted.image.config
    document: dict[str, Any] = msgspec.json.decode(config)
    if document["rootfs"]["diff_ids"] != diff_ids:
        document["rootfs"]["diff_ids"] = diff_ids
        config = msgspec.json.encode(document)
        log.info("saved image has layers of other bytes, so another id", image=wanted.image.id, saved=Digest.of(config).hex)
    return Written(wanted.names, config, tuple(each.size_bytes for each in written))


async def _add(images: Images, wanted: list[NamedImage], path: Path, shape: Shape) -> list[NamedImage]:
    """Add the image to the layout that is there: what it has of it is not written again."""
    from criollo.images.copytargets import opened_layout_target  # rare, and it brings all that `kpod copy` needs

    with contextlib.ExitStack() as opened:
        target = await threads.files(opened.enter_context, opened_layout_target(path, *(wanted[0].names or ("",))))
        parent = images.big_files or path.parent
        async with _tree(images, wanted, shape, parent, path.name) as tree:
            await target.prepare([])
            raw = savedforms.manifest_of(tree.written[0])
            for blob in _blobs_of(raw):
                if not await target.has(blob):
                    await target.put(blob, functools.partial(_pour, tree.path / blob_path(blob.digest)))
            await target.finish(Digest.of(raw), raw, OCI_MANIFEST)
    return wanted


def _blobs_of(raw: bytes) -> list[Descriptor]:
    """The blobs of a manifest, layers first."""
    manifest = decode_manifest(raw)
    if not isinstance(manifest, Manifest):
        raise Invalid("image", "an index", "a manifest")
    return [*manifest.layers, manifest.config]


async def _pour(blob: Path, sink_fd: int) -> None:
    await threads.transfers(_copy, blob, sink_fd)


def _copy(blob: Path, sink_fd: int) -> None:
    with explain(f"copy {blob}"), blob.open("rb") as source:
        while os.sendfile(sink_fd, source.fileno(), None, 1 << 26):
            pass
