"""Where `kpod copy` reads from: a repository, an OCI layout or archive, a `dir`. What comes out has the digest it was asked by.

A file is judged as `kpod load` judges it: whether images may come from there at all (`Judge.judge_file`), and each image of a
`dir` by its signatures, where its place demands some.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.errors import Damaged, Invalid, NotFound, explain
from criollo.images import dirlayout, layout
from criollo.images.copy import Document
from criollo.images.copyflow import Anew
from criollo.images.copyparts import DirectoryParts, Parts, opened_directory, pour_part, read_document, read_part
from criollo.images.copytar import opened_archive
from criollo.images.progress import LayerProgress
from criollo.images.signatures import Asked, find_signatures
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_MANIFEST_BYTES, Descriptor, Index, decode_manifest
from criollo.oci.reference import Reference
from criollo.oci.signature import SignatureKind
from criollo.registry.blobs import Route
from criollo.registry.client import Registry, Shown
from criollo.trust.judge import Case, Evidence, Judge
from criollo.trust.places import FilePlace


class Trust(NamedTuple):
    """Who judges, and the directory that says where signatures are."""

    judge: Judge
    places: Path | None


class Ruled(NamedTuple):
    """A place of files, and who judges what comes from it."""

    judge: Judge
    place: FilePlace


class RegistrySource:
    """An image at a registry."""

    def __init__(self, registry: Registry, ref: Reference, shown: Shown, *, trust: Trust) -> None:
        self._registry, self._ref, self._shown, self._trust = registry, ref, shown, trust
        self._routes: dict[Digest, Route] = {}

    async def document(self, digest: Digest | None) -> Document:
        ref = self._ref if digest is None else self._ref.with_digest(digest)
        found = await self._registry.manifest(ref, self._shown)
        return Document(found.raw, found.media_type, found.source or self._ref.name)

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        def arrived(count: int) -> None:
            bar.done_bytes += count

        route = self._routes.setdefault(blob.digest, Route())
        try:
            await self._registry.blob(self._ref, blob, sink_fd, self._shown, progress=arrived, route=route)
        except Damaged as error:
            if route.leave_out_mirrors_of(blob):
                raise Anew(str(error)) from error
            raise

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        kinds = frozenset(SignatureKind) if carried else self._trust.judge.kinds_wanted(self._ref, "")
        if not kinds:
            return ()
        asked = Asked(self._ref, found.raw, found.served_by, self._shown)
        return tuple(dict.fromkeys(await find_signatures(self._registry, self._trust.places, asked, kinds)))

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        evidence = Evidence(Digest.of(found.raw), tuple(blobs))
        await self._trust.judge.judge(Case(self._ref, (evidence.fingerprint,), lambda: [evidence]))


class LayoutSource:
    """An image of an OCI layout, in a directory or an archive: the entry of its index that has the name."""

    def __init__(self, parts: Parts, entry: Descriptor) -> None:
        self._parts, self._entry = parts, entry

    async def document(self, digest: Digest | None) -> Document:
        wanted = digest or self._entry.digest
        raw = await threads.files(read_document, self._parts, layout.blob_path(wanted), wanted, MAX_MANIFEST_BYTES)
        return Document(raw, self._entry.media_type if digest is None else "")

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        await pour_part(self._parts, layout.blob_path(blob.digest), blob, sink_fd, bar=bar)

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        return ()

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        """Done when it was opened."""


class DirSource:
    """The image of a `dir`, with its signatures; `top` is its manifest.json."""

    def __init__(self, parts: DirectoryParts, top: bytes, ruled: Ruled | None = None) -> None:
        self._parts, self._top, self._ruled = parts, top, ruled

    async def document(self, digest: Digest | None) -> Document:
        if digest is None or digest.matches(self._top):
            return Document(self._top)
        with explain("read the directory"):
            return Document(await threads.files(dirlayout.read_document, self._parts.directory, digest))

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        await pour_part(self._parts, blob.digest.hex, blob, sink_fd, bar=bar)

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        prefix = "" if found.raw == self._top else f"{Digest.of(found.raw).hex}."
        with explain("read the directory"):
            return await threads.files(dirlayout.read_signatures, self._parts.directory, prefix)

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        if self._ruled is None:
            return
        judge, place = self._ruled
        evidence = Evidence(Digest.of(found.raw), tuple(blobs))
        await judge.judge(Case(None, (evidence.fingerprint,), lambda: [evidence], evidence.digest, place))


@contextmanager
def opened_layout(path: Path, name: str) -> Iterator[LayoutSource]:
    """The image of the layout at `path` that has the name, or the only one. Blocking.

    Raises:
        Invalid: it is no layout, or has several.
        NotFound: it has none of this name.
    """
    with opened_directory(path) as parts:
        yield _layout(parts, name, path)


@asynccontextmanager
async def opened_oci_archive(path: Path, name: str, scratch: Path) -> AsyncIterator[LayoutSource]:
    """The same of an archive. Raises Damaged and Exhausted too, as `opened_archive`."""
    async with opened_archive(path, scratch) as parts:
        yield await threads.files(_layout, parts, name, path)


@contextmanager
def opened_dir(path: Path, ruled: Ruled | None = None) -> Iterator[DirSource]:
    """The image of a `dir`, whose images are judged where it is `ruled`. Blocking. Raises Invalid: it is none."""
    with opened_directory(path) as parts:
        raw = read_part(parts, "manifest.json", MAX_MANIFEST_BYTES)
        if raw is None or not dirlayout.is_dir(raw):
            raise Invalid("source", str(path), "a directory with the manifest.json of an image")
        dirlayout.check_version(parts.directory)
        yield DirSource(parts, raw, ruled)


def _layout(parts: Parts, name: str, path: Path) -> LayoutSource:
    raw = read_part(parts, "index.json", MAX_MANIFEST_BYTES)
    if raw is None:
        raise Invalid("source", str(path), "an OCI layout, which has an index.json; docker's archives are docker-archive:")
    index = decode_manifest(raw)
    if not isinstance(index, Index):
        raise Invalid("index.json", "a manifest", "an image index")
    return LayoutSource(parts, _entry(index, name, path))


def _entry(index: Index, name: str, path: Path) -> Descriptor:
    brought = {layout.REF_NAME, layout.CONTAINERD_NAME}
    named = [each for each in index.manifests if not name or name in {each.annotations.get(key) for key in brought}]
    if len({each.digest for each in named}) > 1:
        known = sorted({each.annotations.get(layout.REF_NAME, "") for each in named} - {""})
        raise Invalid("source", str(path), f"one image, or a name after a colon; it has {', '.join(known[:10]) or 'several'}")
    if not named:
        raise NotFound("image", f"{path}:{name}" if name else str(path), "the layout has none of this name")
    return named[0]
