"""Sigstore signatures in the registry itself: the layers of the image `<repository>:sha256-<hex>.sig`, as cosign puts them.

Each is there uncompressed, so its diff id in the config is its digest. Whoever adds one writes the image anew: of two who do so
at once, one is lost. cosign adds one at each signing, mostly with a payload that is there already.

Source: cosign's SIGNATURE_SPEC, section Storage.
"""

import os
from typing import TYPE_CHECKING, Any

from msgspec import json

from criollo.errors import Invalid, NotFound
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, decode_manifest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_BYTES, MAX_SIGNATURES, SIGSTORE_TYPE, Signature, sigstore
from criollo.registry.client import Registry, Shown

if TYPE_CHECKING:
    from criollo.registry.uploads import Uploads


async def fetch(registry: Registry, ref: Reference, digest: Digest, shown: Shown = None) -> list[Signature]:
    """All signatures attached to a manifest of `ref`'s repository; attachments of other kinds are left out.

    Raises:
        Invalid: there are too many, their payloads are too long together, or they are no image of this kind.
        Unavailable, Forbidden, Unauthenticated, Damaged: as for a manifest.
    """
    place = _place(ref, digest)
    layers = [layer for layer in await _layers(registry, place, shown) if layer.media_type == SIGSTORE_TYPE]
    total_bytes = sum(layer.size for layer in layers)
    if total_bytes > MAX_BYTES:
        raise Invalid(f"signatures {place}", f"{total_bytes} bytes of payloads", f"at most {MAX_BYTES} bytes, all together")
    payloads: dict[tuple[Digest, int], bytes] = {}
    for layer in layers:
        key = (layer.digest, layer.size)
        if key not in payloads:
            payloads[key] = await _payload(registry, place, layer, shown)
    return [_signature(place, layer, payloads[layer.digest, layer.size]) for layer in layers]


async def attach(registry: Registry, ref: Reference, digest: Digest, signature: Signature, shown: Shown = None) -> Reference:
    """Add a signature to those of a manifest; returns where they are.

    Raises:
        Invalid: what is there already is no image of this kind, or full.
        Unavailable, Forbidden, Unauthenticated: the registry says so, or does not answer.
    """
    from criollo.registry.uploads import Uploads  # `kpod sign` alone comes here

    place = _place(ref, digest)
    uploads = Uploads(registry, place, shown)
    layers = [_described(each) for each in await _layers(registry, place, shown)]
    if len(layers) >= MAX_SIGNATURES:
        raise Invalid(f"signatures {place}", len(layers), "fewer; remove old ones (`cosign clean` removes all)")
    layers.append({**await _send(uploads, signature.payload, SIGSTORE_TYPE), "annotations": signature.annotations})
    rootfs = {"type": "layers", "diff_ids": [each["digest"] for each in layers]}
    config = json.encode({"architecture": "", "os": "", "config": {}, "rootfs": rootfs})
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": await _send(uploads, config, OCI_CONFIG),
        "layers": layers,
    }
    await uploads.manifest(OCI_MANIFEST, json.encode(document))
    return place


def _place(ref: Reference, digest: Digest) -> Reference:
    return ref.with_tag(f"{digest.algorithm}-{digest.hex}.sig")


async def _layers(registry: Registry, place: Reference, shown: Shown) -> list[Descriptor]:
    """The attachments of all kinds; none where there is no such image."""
    try:
        answer = await registry.manifest(place, shown, accept=(OCI_MANIFEST,))
    except NotFound:
        return []
    manifest = decode_manifest(answer.raw, answer.media_type, artifacts=True)
    if not isinstance(manifest, Manifest):
        raise Invalid(f"signatures {place}", "an index", "an image whose layers are the signatures")
    return list(manifest.layers)


def _described(layer: Descriptor) -> dict[str, Any]:
    return {"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size, "annotations": layer.annotations}


async def _send(uploads: "Uploads", content: bytes, media_type: str) -> dict[str, Any]:
    """Send a small blob; its descriptor."""
    from criollo.registry.uploads import BytesBody

    digest = Digest.of(content)
    await uploads.send(digest, BytesBody(content))
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}


async def _payload(registry: Registry, place: Reference, layer: Descriptor, shown: Shown) -> bytes:
    fd = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        await registry.blob(place, layer, fd, shown)
        return os.pread(fd, layer.size, 0)
    finally:
        os.close(fd)


def _signature(place: Reference, layer: Descriptor, payload: bytes) -> Signature:
    return sigstore(payload, media_type=layer.media_type, annotations=layer.annotations, what=f"signature of {place}")
