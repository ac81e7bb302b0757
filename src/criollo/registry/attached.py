"""Sigstore signatures in the registry itself: the layers of the image `<repository>:sha256-<hex>.sig`, as cosign puts them.

Source: cosign's SIGNATURE_SPEC, section Storage.
"""

import os

from criollo.errors import Invalid, NotFound
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_MANIFEST, Descriptor, Manifest, decode_manifest
from criollo.oci.reference import Reference
from criollo.oci.signature import SIGSTORE_TYPE, Signature, sigstore
from criollo.registry.client import Registry, Shown
from criollo.registry.lookaside import LIMITS, MAX_SIGNATURES, MAX_TOTAL_BYTES


async def fetch(registry: Registry, ref: Reference, digest: Digest, shown: Shown = None) -> list[Signature]:
    """All signatures attached to a manifest of `ref`'s repository; attachments of other kinds are left out.

    Raises:
        Invalid: there are too many or too long ones, or they are no image of this kind.
        Unavailable, Forbidden, Unauthenticated, Damaged: as for a manifest.
    """
    place = ref.with_tag(f"{digest.algorithm}-{digest.hex}.sig")
    try:
        answer = await registry.manifest(place, shown, accept=(OCI_MANIFEST,))
    except NotFound:
        return []
    manifest = decode_manifest(answer.raw, answer.media_type, artifacts=True)
    if not isinstance(manifest, Manifest):
        raise Invalid(f"signatures {place}", "an index", "an image whose layers are the signatures")
    layers = [layer for layer in manifest.layers if layer.media_type == SIGSTORE_TYPE]
    if len(layers) > MAX_SIGNATURES or sum(layer.size for layer in layers) > MAX_TOTAL_BYTES:
        raise Invalid(f"signatures {place}", "too many or too long", LIMITS)
    return [await _fetch_one(registry, place, layer, shown) for layer in layers]


async def _fetch_one(registry: Registry, place: Reference, layer: Descriptor, shown: Shown) -> Signature:
    fd = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        await registry.blob(place, layer, fd, shown)
        payload = os.pread(fd, layer.size, 0)
    finally:
        os.close(fd)
    return sigstore(payload, media_type=layer.media_type, annotations=layer.annotations, what=f"signature of {place}")
