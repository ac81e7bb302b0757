"""Where `kpod copy` writes to, when that is a registry: what it has, here or in the repository that is copied, is not sent."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from criollo.aio import threads
from criollo.errors import Invalid
from criollo.images.copy import Gathered
from criollo.images.copyflow import Anew, Pipe, Pour, through
from criollo.linux.home import with_home
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Descriptor
from criollo.oci.reference import Reference
from criollo.oci.signature import SignatureKind, parse_blob
from criollo.registry import attached, lookaside
from criollo.registry.client import Registry, Shown
from criollo.registry.registries_d import SignaturePlaces, default_lookaside
from criollo.registry.uploads import PipeBody, Unrepeatable, Uploads


class Destination(NamedTuple):
    """A name at a registry; `sources` are repositories there that blobs may be taken from, `places` is registries.d."""

    ref: Reference
    shown: Shown = None
    sources: tuple[str, ...] = ()
    places: Path | None = None


class RegistryTarget:
    """A name at a registry. Simple signatures go into the lookaside that registries.d names, sigstore ones beside the image."""

    def __init__(self, registry: Registry, place: Destination) -> None:
        self._registry, self._place = registry, place
        self._uploads = Uploads(registry, place.ref, place.shown, sources=place.sources)
        self._lookaside = ""

    async def prepare(self, nodes: Sequence[Gathered]) -> None:
        ref, top = self._place.ref, nodes[-1].digest
        signatures = [blob for node in nodes for blob in node.signatures]
        if ref.digest is not None and ref.digest != top:
            raise Invalid("destination", str(ref), f"a name with a tag, or with the digest of what is copied: {top}")
        if any(parse_blob(blob).kind is SignatureKind.SIMPLE for blob in signatures):
            places = await threads.files(SignaturePlaces.load, self._place.places)
            self._lookaside = places.staging(ref) or default_lookaside(with_home(os.environ), os.geteuid())
            if not self._lookaside.startswith("file://"):
                raise Invalid(
                    "lookaside",
                    self._lookaside,
                    "file:///… for the image's signatures; set lookaside-staging in registries.d, or say --remove-signatures",
                )

    async def has(self, blob: Descriptor) -> bool:
        size = await self._uploads.size_of(blob.digest)
        if size is None:
            return await self._uploads.mount(blob.digest)
        return size in (-1, blob.size)

    async def put(self, blob: Descriptor, pour: Pour) -> None:
        async def send(pipe: Pipe) -> None:
            try:
                await self._uploads.send(blob.digest, PipeBody(pipe.source_fd, blob.size, lambda: pipe.was_right))
            except Unrepeatable as error:
                raise Anew(str(error)) from error

        await through(pour, send)

    async def put_document(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self._put(self._place.ref.with_digest(digest), raw, media_type)

    async def put_signatures(self, digest: Digest, blobs: Sequence[bytes]) -> None:
        """Those that are there already are not added once more."""
        ref, shown = self._place.ref, self._place.shown
        simple = [blob for blob in blobs if parse_blob(blob).kind is SignatureKind.SIMPLE]
        if simple:
            there = await lookaside.fetch(self._registry, self._lookaside, ref.path, digest)
            for blob in simple:
                if blob not in there:
                    await threads.files(lookaside.store, self._lookaside, ref.path, digest, blob)
        others = [parse_blob(blob) for blob in blobs if blob not in simple]
        if others:
            known = await attached.fetch(self._registry, ref, digest, shown)
            for signature in others:
                if signature not in known:
                    await attached.attach(self._registry, ref, digest, signature, shown)

    async def finish(self, digest: Digest, raw: bytes, media_type: str) -> None:
        await self._put(self._place.ref, raw, media_type)

    async def _put(self, ref: Reference, raw: bytes, media_type: str) -> None:
        await Uploads(self._registry, ref, self._place.shown).manifest(media_type, raw)
