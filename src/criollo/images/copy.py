"""Copy an image, or all that an index lists, from one place to another as it is: `kpod copy`, without a daemon.

    CopySource    a repository, a layout, an archive, a `dir`       documents by digest, blobs as streams (`copyflow`)
    CopyTarget    the same                                          blobs, then documents, then signatures, the name last

Nothing is unpacked and nothing is written anew, so digests stay and signatures fit. Every manifest is judged by the policy of
its source before a blob moves. What the target has is not sent again, so a copy that was cut goes on where it was; until all
is there, nothing at the target leads to it. A blob goes from source to target in pieces, and is finished there only when its
digest was right.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from criollo.aio.together import together
from criollo.errors import Invalid, NotFound
from criollo.images.copyflow import Anew, Pour
from criollo.images.progress import LayerProgress, Progress
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    MAX_BLOB_BYTES,
    MAX_INDEX_DEPTH,
    MAX_INDEX_ENTRIES,
    Descriptor,
    Index,
    Manifest,
    decode_manifest,
)
from criollo.oci.platform import Platform, host_platform, select

MAX_DOCUMENTS_BYTES: Final = 64 << 20  # manifests and indexes of one copy, together
_AT_ONCE: Final = 4
_PAUSES_S: Final = (0.2, 0.8, 3.2)  # between attempts at one blob


class Document(NamedTuple):
    """The exact bytes of a manifest or index, what its source calls them, and the repository that served it."""

    raw: bytes
    media_type: str = ""
    served_by: str = ""


class CopySource(Protocol):
    """Where an image is. All methods raise what reading there raises; Damaged where bytes are not what their digest says."""

    async def document(self, digest: Digest | None) -> Document:
        """The document of a digest; None: what was asked for."""

    async def pour(self, blob: Descriptor, sink_fd: int, bar: LayerProgress) -> None:
        """Write a blob into a pipe or file, never more than its size. Raises Anew: another try may help."""

    async def signatures(self, found: Document, *, carried: bool) -> Sequence[bytes]:
        """The signatures of an index or manifest, unverified; only those that the policy wants unless they are `carried` on."""

    async def judge(self, found: Document, blobs: Sequence[bytes]) -> None:
        """Let a manifest be used. Raises Denied."""


class CopyTarget(Protocol):
    """Where an image shall be. All methods raise what writing there raises."""

    async def prepare(self, nodes: Sequence["Gathered"]) -> None:
        """Refuse, before anything moves, what this place cannot hold; the last node is what gets the name. Raises Invalid."""

    async def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there, after this call."""

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        """Take a blob, which is there only when the pour has ended well. May be repeated. Raises Anew: another try may help."""

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        """Write a document that has no name."""

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Add signatures to those of a document."""

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        """Write the document that the image is, and give it the name."""


class CopyWish(NamedTuple):
    """What of the image: `every` platform that an index lists, else one (None: this host's); with its `signatures` or not."""

    every: bool = False
    platform: Platform | None = None
    signatures: bool = True


class Copied(NamedTuple):
    """What the target has now. `sent` blobs of `blobs` were not there; `missing` are foreign layers that the source lacks."""

    digest: Digest
    manifests: int
    blobs: int
    sent: int
    sent_bytes: int
    signatures: int
    missing: tuple[Digest, ...]


class Gathered(NamedTuple):
    """A document on its way, with the signatures that go along."""

    digest: Digest
    raw: bytes
    content: Manifest | Index
    signatures: tuple[bytes, ...]


async def copy_image(source: CopySource, target: CopyTarget, wish: CopyWish, progress: Progress) -> Copied:
    """Copy what the source was opened for.

    Raises:
        Denied: the policy refuses a manifest.
        Invalid: a document breaks its rules or the limits, or the target cannot hold what there is.
        NotFound: the source lacks something, or an index has nothing for the platform.
        Damaged: something is not what its digest says.
    """
    nodes = await _Gathering(source, wish).all()
    top = nodes[-1]
    await target.prepare(nodes)
    blobs = sorted(_blobs(nodes), key=lambda blob: blob.is_foreign)
    progress.layers = [LayerProgress(str(each.digest), each.size) for each in blobs]
    turn = asyncio.Semaphore(_AT_ONCE)
    work = [_carry(source, target, turn, *each) for each in zip(blobs, progress.layers, strict=True)]
    certain = sum(not each.is_foreign for each in blobs)
    # Those that may be missing go last and alone: what an archive has kept free for one can then be taken back.
    sent = [*await together(work[:certain]), *[await each for each in work[certain:]]]
    for node in nodes[:-1]:
        await target.put_document(node.digest, node.raw, node.content.media_type)
    for node in nodes:
        if node.signatures:
            await target.put_signatures(node.digest, node.signatures)
    await target.finish(top.digest, top.raw, top.content.media_type)
    went = [each.size for each, how in zip(blobs, sent, strict=True) if how]
    missing = tuple(each.digest for each, how in zip(blobs, sent, strict=True) if how is None)
    signatures = sum(len(node.signatures) for node in nodes)
    return Copied(top.digest, len(nodes), len(blobs), len(went), sum(went), signatures, missing)


async def _carry(
    source: CopySource, target: CopyTarget, turn: asyncio.Semaphore, blob: Descriptor, bar: LayerProgress
) -> bool | None:
    """Whether a blob had to be sent; None for a foreign layer that the source lacks: registries take its manifest."""
    async with turn:
        is_sent: bool | None = False
        if not await target.has(blob):
            try:
                await _send(source, target, blob, bar)
                is_sent = True
            except NotFound:
                if not blob.is_foreign:
                    raise
                is_sent = None
        bar.stage, bar.done_bytes = ("foreign", 0) if is_sent is None else ("there", bar.size_bytes)
        return is_sent


async def _send(source: CopySource, target: CopyTarget, blob: Descriptor, bar: LayerProgress) -> None:
    async def pour(sink_fd: int) -> None:
        bar.done_bytes = 0
        await source.pour(blob, sink_fd, bar)

    bar.stage = "copying"
    for pause_s in (*_PAUSES_S, None):
        bar.connections += 1
        try:
            await target.put(blob, pour)
            return
        except Anew:
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)


def _blobs(nodes: Sequence[Gathered]) -> list[Descriptor]:
    """All blobs, each once. Raises Invalid: one is without end."""
    found: dict[Digest, Descriptor] = {}
    for node in nodes:
        if isinstance(node.content, Manifest):
            for blob in (*node.content.layers, node.content.config):
                if blob.size > MAX_BLOB_BYTES:
                    raise Invalid(f"size of blob {blob.digest}", blob.size, f"at most {MAX_BLOB_BYTES} bytes")
                found.setdefault(blob.digest, blob)
    return list(found.values())


class _Gathering:
    """The documents of one copy, judged; an index comes after all that it lists."""

    def __init__(self, source: CopySource, wish: CopyWish) -> None:
        self._source, self._wish = source, wish
        self._nodes: dict[Digest, Gathered] = {}
        self._bytes = 0

    async def all(self) -> list[Gathered]:
        first = await self._source.document(None)
        await self._add(Digest.of(first.raw), first, 0)
        return list(self._nodes.values())

    async def _add(self, digest: Digest, found: Document, depth: int) -> None:
        content = decode_manifest(found.raw, found.media_type, artifacts=True)
        if isinstance(content, Index):
            if depth >= MAX_INDEX_DEPTH:
                raise Invalid("manifest", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")
            if not self._wish.every:
                chosen = select(self._wish.platform or host_platform(), content.manifests).digest
                await self._add(chosen, await self._fetch(chosen), depth + 1)
                return
            await self._add_listed(content, depth)
        await self._keep(digest, found, content)

    async def _add_listed(self, index: Index, depth: int) -> None:
        wanted = [digest for digest in dict.fromkeys(each.digest for each in index.manifests) if digest not in self._nodes]
        if len(self._nodes) + len(wanted) > MAX_INDEX_ENTRIES:
            raise Invalid("manifest.manifests", f"over {MAX_INDEX_ENTRIES} manifests", f"at most {MAX_INDEX_ENTRIES} together")
        documents = await together(self._fetch(digest) for digest in wanted)
        for digest, document in zip(wanted, documents, strict=True):
            if digest not in self._nodes:
                await self._add(digest, document, depth + 1)

    async def _fetch(self, digest: Digest) -> Document:
        found = await self._source.document(digest)
        self._bytes += len(found.raw)
        if self._bytes > MAX_DOCUMENTS_BYTES:
            raise Invalid("manifests", f"over {MAX_DOCUMENTS_BYTES} bytes", f"at most {MAX_DOCUMENTS_BYTES} bytes together")
        return found

    async def _keep(self, digest: Digest, found: Document, content: Manifest | Index) -> None:
        """Judge a manifest. An index is not: what it lists is what runs."""
        carried = self._wish.signatures
        if isinstance(content, Manifest):
            blobs = tuple(await self._source.signatures(found, carried=carried))
            await self._source.judge(found, blobs)
        else:
            blobs = tuple(await self._source.signatures(found, carried=True)) if carried else ()
        self._nodes[digest] = Gathered(digest, found.raw, content, blobs if carried else ())
