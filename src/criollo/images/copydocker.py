"""Docker's archive as an end of `kpod copy`: what `docker save` writes and `docker load` reads.

    manifest.json, <config>.json, <layer>.tar        several images, each with its names; layers as they are unpacked

Such an archive has no manifest that a registry knows. One that is read gets a manifest for its layers as they are, which is
the same each time. Into one that is written layers go inflated, one after the other, since the size of each comes before it.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.aio import threads
from criollo.errors import Damaged, Exhausted, Invalid, NotFound, Unsupported
from criollo.images.copy import Document, Gathered
from criollo.images.copyarchive import Tape, head
from criollo.images.copyflow import Pipe, Pour, through
from criollo.images.copyparts import PIECE_BYTES, Parts, pieces, pour_part, read_part, write_all
from criollo.images.copytar import opened_archive
from criollo.images.copytargets import refuse_signatures
from criollo.images.layout import DockerEntry, docker_entries, encode_manifest
from criollo.images.progress import LayerProgress
from criollo.images.savedforms import docker_entry
from criollo.images.workplace import new_file
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    MAX_BLOB_BYTES,
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    check_layers,
    compression_of,
    decode_config,
    decode_manifest,
)
from criollo.oci.reference import Reference
from criollo.workers.inflate import read_plain

_DRESSES: Final = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd", b"\xfd7zXZ": "", b"BZh": ""}  # no OCI type: the last two


class _Described(NamedTuple):
    """An image of an archive: its manifest, and where the archive has what that names."""

    raw: bytes
    paths: dict[Digest, str]


class DockerSource:
    """One image of docker's archive."""

    def __init__(self, parts: Parts, described: _Described) -> None:
        self._parts, self._raw, self._paths = parts, described.raw, described.paths

    async def document(self, digest: Digest | None) -> Document:
        if digest is not None and not digest.matches(self._raw):
            raise NotFound("manifest", digest, "the archive has one image for one platform")
        return Document(self._raw, OCI_MANIFEST)

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        await pour_part(self._parts, self._paths[blob.digest], blob, sink_fd, bar=bar)

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        return ()

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        """Done when it was opened."""


@asynccontextmanager
async def opened_docker_archive(path: Path, name: str, scratch: Path) -> AsyncIterator[DockerSource]:
    """The image of the archive that has the name, or is the one at `@NUMBER`, or the only one.

    Raises:
        Invalid: it is no such archive, or has several images.
        NotFound: it has none of this name.
        Damaged, Exhausted: as `opened_archive`.
    """
    async with opened_archive(path, scratch) as parts:
        yield DockerSource(parts, await threads.transfers(_described, parts, name, path))


class DockerTarget:
    """A docker archive of one image in an open file, which its opener publishes; `names` are those it is loaded by."""

    def __init__(self, fd: int, names: Sequence[str]) -> None:
        self._tape, self._names, self._turn = Tape(fd), tuple(names), asyncio.Lock()
        self._config_digest: Digest | None = None
        self._config = b""
        self._plain: dict[Digest, Digest] = {}  # what a layer is unpacked, by what it is as it travels

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        refuse_signatures(nodes, "a docker archive")
        if isinstance(nodes[-1].content, Index):
            raise Invalid("destination", "a docker archive", "one image for an index: --platform instead of --all")
        manifest = decode_manifest(nodes[-1].raw, nodes[-1].content.media_type)  # once more: artifacts have no place here
        assert isinstance(manifest, Manifest)
        for layer in manifest.layers:
            compression_of(layer.media_type)
        if manifest.config.size > MAX_CONFIG_BYTES:
            raise Invalid("manifest.config.size", manifest.config.size, f"at most {MAX_CONFIG_BYTES} bytes")
        self._config_digest = manifest.config.digest

    async def has(self, blob: Descriptor) -> bool:
        return False

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        if blob.digest == self._config_digest:
            await through(pour, self._take_config)
            return
        async with self._turn:
            await through(pour, partial(self._take_layer, blob.digest))

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        """There is none but the image's own."""

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Refused before."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        manifest, config = decode_manifest(raw, media_type), decode_config(self._config)
        assert isinstance(manifest, Manifest)
        check_layers(manifest, config)
        for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
            if layer.digest not in self._plain:
                raise NotFound("foreign layer", layer.digest, "a docker archive must have all layers")
            if self._plain[layer.digest] != diff_id:
                raise Damaged(
                    f"layer {layer.digest} unpacks to {self._plain[layer.digest]}, its config says {diff_id}; "
                    "the image was built wrong or its config belongs to another one"
                )
        entry = docker_entry(self._names, self._config, [_layer_name(diff_id) for diff_id in config.rootfs.diff_ids])
        await self._tape.add(entry.config, self._config)
        await self._tape.add("manifest.json", msgspec.json.encode([entry]))
        await self._tape.close()

    async def _take_config(self, pipe: Pipe) -> None:
        def read() -> bytes:
            with os.fdopen(os.dup(pipe.source_fd), "rb") as source:
                return source.read()

        self._config = await threads.transfers(read)

    async def _take_layer(self, digest: Digest, pipe: Pipe) -> None:
        at = self._tape.end
        try:
            diff_id, size = await threads.transfers(self._inflate, pipe, at)
        except Damaged:
            await threads.transfers(_drain, pipe.source_fd)
            if pipe.was_right:
                raise
        if not pipe.was_right:
            return  # why is the source's to say
        if diff_id not in self._plain.values():
            front = _layer_head(diff_id, size)
            await threads.files(self._tape.write, front, at)
            self._tape.reserve(len(front) + size)
        self._plain[digest] = diff_id

    def _inflate(self, pipe: Pipe, at: int) -> tuple[Digest, int]:
        """Write a layer as it is unpacked behind the place of its header; its diff id and size."""
        hasher, size = hashlib.sha256(), 0
        with self._tape.opened(at + len(_layer_head(Digest.of(b""), 0))) as sink:
            for piece in read_plain(pipe.source_fd, "auto"):
                size += len(piece)
                if size > MAX_BLOB_BYTES:
                    raise Exhausted(f"cannot write a layer: unpacked it has over {MAX_BLOB_BYTES} bytes, the limit")
                hasher.update(piece)
                write_all(sink, piece)
        return Digest(f"sha256:{hasher.hexdigest()}"), size


@asynccontextmanager
async def opened_docker_target(path: Path, names: Sequence[str]) -> AsyncIterator[DockerTarget]:
    """An archive that has its name when the block ends well. Raises Invalid: the path is taken, or a name is none."""
    tags = [Reference.parse(name, field="destination") for name in names]
    for tag in tags:
        if tag.digest is not None:
            raise Invalid("destination", str(tag), "a name with a tag: docker's archives have no digests")
    async with new_file(path) as fd:
        yield DockerTarget(fd, [str(tag) for tag in tags])


def _described(parts: Parts, name: str, path: Path) -> _Described:
    raw = read_part(parts, "manifest.json", MAX_MANIFEST_BYTES)
    if raw is None or raw.lstrip()[:1] != b"[":
        raise Invalid("source", str(path), "a docker archive, which has a manifest.json; OCI archives are oci-archive:")
    entry = _entry(docker_entries(raw), name, path)
    config = read_part(parts, entry.config, MAX_CONFIG_BYTES)
    if config is None:
        raise Invalid("manifest.json Config", entry.config, "a file of the archive")
    diff_ids = decode_config(config).rootfs.diff_ids
    if len(diff_ids) != len(entry.layers):
        raise Invalid("manifest.json Layers", f"{len(entry.layers)} layers", f"{len(diff_ids)}, as the config says")
    layers = [_layer(parts, each, diff_id) for each, diff_id in zip(entry.layers, diff_ids, strict=True)]
    described = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config))
    manifest = Manifest(media_type=OCI_MANIFEST, config=described, layers=tuple(layers))
    paths = {layer.digest: where for layer, where in zip(layers, entry.layers, strict=True)}
    return _Described(encode_manifest(manifest), {**paths, described.digest: entry.config})


def _entry(entries: Sequence[DockerEntry], name: str, path: Path) -> DockerEntry:
    if name.startswith("@"):
        number = int(name[1:]) if name[1:].isascii() and name[1:].isdecimal() and len(name) < 8 else -1
        if not 0 <= number < len(entries):
            raise NotFound("image", f"{path}:{name}", f"the archive has {len(entries)}, the first is @0")
        return entries[number]
    wanted = str(Reference.parse(name, field="source")) if name else ""
    found = [each for each in entries if not wanted or wanted in {str(Reference.parse(tag)) for tag in each.tags or ()}]
    known = sorted({tag for each in entries for tag in each.tags or ()})
    if not found:
        raise NotFound("image", f"{path}:{name}" if name else str(path), f"the archive has {', '.join(known[:10]) or 'none'}")
    if len(found) > 1:
        said = ", ".join(known[:10]) or f"{len(found)} without names"
        raise Invalid("source", str(path), f"a name or @NUMBER after a colon; it has {said}")
    return found[0]


def _layer(parts: Parts, where: str, diff_id: Digest) -> Descriptor:
    """A layer as the archive has it: mostly it is plain, and then its digest is known."""
    with parts.opened(where) as part:
        first = os.pread(part.fd, min(8, part.size), part.start)
        dress = next((dress for magic, dress in _DRESSES.items() if first.startswith(magic)), None)
        if dress is None:
            return Descriptor(media_type=OCI_LAYER, digest=diff_id, size=part.size)
        if not dress:
            raise Unsupported(
                f"cannot copy layer {where}: it is compressed by xz or bzip2, for which images have no type; load it"
            )
        hasher = hashlib.sha256()
        for piece in pieces(part, where):
            hasher.update(piece)
        return Descriptor(media_type=f"{OCI_LAYER}{dress}", digest=Digest(f"sha256:{hasher.hexdigest()}"), size=part.size)


def _drain(fd: int) -> None:
    while os.read(fd, PIECE_BYTES):
        pass


def _layer_name(diff_id: Digest) -> str:
    return f"{diff_id.hex}.tar"


def _layer_head(diff_id: Digest, size: int) -> bytes:
    """Always of one length, by a time that only an extended header can say: it is left free before the size is known."""
    return head(_layer_name(diff_id), size, mtime_ns=1)
