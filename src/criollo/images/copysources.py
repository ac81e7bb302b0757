"""Where `kpod copy` reads from: a repository, an OCI layout, a `dir`. What comes out has the digest it was asked by.

A file is judged as `kpod load` judges it: whether images may come from there at all (`Judge.judge_file`).
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.errors import Damaged, Invalid, NotFound, explain
from criollo.images import dirlayout, layout
from criollo.images.copy import Document
from criollo.images.progress import LayerProgress
from criollo.images.signatures import Asked, find_signatures
from criollo.images.workplace import anonymous, open_nameless
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_MANIFEST_BYTES, Descriptor, Index, decode_manifest
from criollo.oci.reference import Reference
from criollo.oci.signature import SignatureKind
from criollo.registry.blobs import Route
from criollo.registry.client import Registry, Shown
from criollo.trust.judge import Case, Evidence, Judge

_PIECE_BYTES = 1 << 20


class Trust(NamedTuple):
    """Who judges, and the directory that says where signatures are."""

    judge: Judge
    places: Path | None


class RegistrySource:
    """An image at a registry; blobs wait in files without a name below `scratch`."""

    def __init__(self, registry: Registry, ref: Reference, shown: Shown, *, trust: Trust, scratch: Path) -> None:
        self._registry, self._ref, self._shown, self._trust, self._scratch = registry, ref, shown, trust, scratch

    async def document(self, digest: Digest | None) -> Document:
        ref = self._ref if digest is None else self._ref.with_digest(digest)
        found = await self._registry.manifest(ref, self._shown)
        return Document(found.raw, found.media_type, found.source or self._ref.name)

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, bar: LayerProgress) -> AsyncIterator[int]:
        bar.stage = "pulling"
        fd = await threads.files(_scratch_file, self._scratch)
        try:

            def arrived(count: int) -> None:
                bar.done_bytes += count

            route = Route()
            while True:
                try:
                    await self._registry.blob(self._ref, descriptor, fd, self._shown, progress=arrived, route=route)
                    break
                except Damaged:
                    if not route.leave_out_mirrors_of(descriptor):
                        raise
                bar.done_bytes = 0
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
            os.set_blocking(fd, True)
            yield fd
        finally:
            os.close(fd)

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        kinds = frozenset(SignatureKind) if carried else self._trust.judge.kinds_wanted(self._ref, "")
        if not kinds:
            return ()
        asked = Asked(self._ref, found.raw, found.served_by, self._shown)
        return tuple(dict.fromkeys(await find_signatures(self._registry, self._trust.places, asked, kinds)))

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        evidence = Evidence(Digest.of(found.raw), tuple(blobs))
        await self._trust.judge.judge(Case(self._ref, (evidence.fingerprint,), lambda: [evidence]))


class _FileSource:
    """What layouts and `dir`s share: blobs beneath a directory, which the file's policy has let pass."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def path_of(self, digest: Digest) -> str:
        return layout.blob_path(digest)

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, bar: LayerProgress) -> AsyncIterator[int]:
        bar.stage = "reading"
        fd = await threads.transfers(_opened, self._directory, self.path_of(descriptor.digest), descriptor)
        try:
            yield fd
        finally:
            os.close(fd)

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        """Done when it was opened."""


class LayoutSource(_FileSource):
    """An image of an OCI layout, or of an archive that was unpacked: the entry of its index that has the name."""

    def __init__(self, directory: int, entry: Descriptor) -> None:
        super().__init__(directory)
        self._entry = entry

    async def document(self, digest: Digest | None) -> Document:
        wanted = self._entry if digest is None else Descriptor(media_type="", digest=digest, size=0)
        with explain("read the layout"):
            raw = await threads.files(layout.read_blob, self._directory, wanted, MAX_MANIFEST_BYTES)
        return Document(raw, wanted.media_type)

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        return ()


class DirSource(_FileSource):
    """The image of a `dir`, with its signatures; `top` is its manifest.json."""

    def __init__(self, directory: int, top: bytes) -> None:
        super().__init__(directory)
        self._top = top

    def path_of(self, digest: Digest) -> str:
        return digest.hex

    async def document(self, digest: Digest | None) -> Document:
        if digest is None or digest.matches(self._top):
            return Document(self._top)
        with explain("read the directory"):
            return Document(await threads.files(dirlayout.read_document, self._directory, digest))

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        prefix = "" if found.raw == self._top else f"{Digest.of(found.raw).hex}."
        with explain("read the directory"):
            return await threads.files(dirlayout.read_signatures, self._directory, prefix)


@contextmanager
def opened_layout(path: Path, name: str) -> Iterator[LayoutSource]:
    """The image of the layout at `path` that has the name, or the only one. Blocking.

    Raises:
        Invalid: it is no layout, or has several.
        NotFound: it has none of this name.
    """
    with _opened_directory(path) as directory:
        raw = _read(directory, "index.json", path)
        if raw is None:
            raise Invalid("source", str(path), "an OCI layout, which has an index.json")
        index = decode_manifest(raw)
        if not isinstance(index, Index):
            raise Invalid("index.json", "a manifest", "an image index")
        yield LayoutSource(directory, _entry(index, name, path))


@contextmanager
def opened_dir(path: Path) -> Iterator[DirSource]:
    """The image of a `dir`. Blocking. Raises Invalid: it is none."""
    with _opened_directory(path) as directory:
        raw = _read(directory, "manifest.json", path)
        if raw is None or not dirlayout.is_dir(raw):
            raise Invalid("source", str(path), "a directory with the manifest.json of an image")
        dirlayout.check_version(directory)
        yield DirSource(directory, raw)


@contextmanager
def _opened_directory(path: Path) -> Iterator[int]:
    with explain(f"read {path}"):
        directory = files.open_directory(path)
    try:
        yield directory
    finally:
        os.close(directory)


def _read(directory: int, name: str, path: Path) -> bytes | None:
    with explain(f"read {path}"):
        return files.read_in_root(directory, name, MAX_MANIFEST_BYTES)


def _entry(index: Index, name: str, path: Path) -> Descriptor:
    brought = {layout.REF_NAME, layout.CONTAINERD_NAME}
    named = [each for each in index.manifests if not name or name in {each.annotations.get(key) for key in brought}]
    if len({each.digest for each in named}) > 1:
        known = sorted({each.annotations.get(layout.REF_NAME, "") for each in named} - {""})
        raise Invalid("source", str(path), f"one image, or a name after a colon; it has {', '.join(known[:10]) or 'several'}")
    if not named:
        raise NotFound("image", f"{path}:{name}" if name else str(path), "the layout has none of this name")
    return named[0]


def _scratch_file(directory: Path) -> int:
    fd = open_nameless(directory, 0o644)
    if fd is not None:
        return fd
    with anonymous(directory) as file:
        return os.dup(file.fileno())


def _opened(directory: int, path: str, blob: Descriptor) -> int:
    """A file whose bytes are the blob's.

    Raises:
        NotFound: it is not there.
        Damaged: it is something else.
    """
    try:
        fd = files.open_regular_in_root(directory, path)
    except OSError as error:
        raise NotFound("blob", blob.digest, f"the source has no {path}; make it again") from error
    try:
        with explain(f"read {path}"):
            hasher, at = blob.digest.hasher(), 0
            while at <= blob.size and (piece := os.pread(fd, _PIECE_BYTES, at)):
                hasher.update(piece)
                at += len(piece)
        if at != blob.size or hasher.hexdigest() != blob.digest.hex:
            raise Damaged(f"blob {blob.digest} is not what its digest and size say; make the source again")
    except BaseException:
        os.close(fd)
        raise
    return fd
