"""An image at a registry, looked at without pulling it: manifest, config, tags."""

import os
from typing import Any, NamedTuple

from criollo.errors import Invalid
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_CONFIG_BYTES, MAX_INDEX_DEPTH, Descriptor, Manifest, decode_manifest
from criollo.oci.platform import Platform, host_platform, select
from criollo.oci.reference import Reference
from criollo.registry.client import Registry, Shown
from criollo.registry.tags import list_tags


class RemoteImage(NamedTuple):
    """What a name leads to. `raw` and `digest` are of the manifest or index itself; `manifest` is this platform's, with its
    bytes `chosen` and the repository that served it."""

    reference: Reference
    raw: bytes
    digest: Digest
    manifest: Manifest
    chosen: bytes
    source: str


async def look(registry: Registry, ref: Reference, shown: Shown = None, *, platform: Platform | None = None) -> RemoteImage:
    """Fetch the manifest of an image, through indexes to the one for the platform (this host's).

    Raises:
        NotFound, Unauthenticated, Forbidden, Unavailable, Damaged: as `Registry.manifest`.
        Invalid: a document breaks its rules.
    """
    first = fetched = await registry.manifest(ref, shown)
    for _ in range(MAX_INDEX_DEPTH + 1):
        found = decode_manifest(fetched.raw, fetched.media_type, artifacts=True)
        if isinstance(found, Manifest):
            return RemoteImage(ref, first.raw, first.digest, found, fetched.raw, fetched.source or ref.name)
        chosen = select(platform or host_platform(), found.manifests)
        fetched = await registry.manifest(ref.with_digest(chosen.digest), shown)
    raise Invalid("manifest", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")


async def fetch_config(registry: Registry, image: RemoteImage, shown: Shown = None) -> bytes:
    """The exact bytes of the image's config. Raises as `Registry.blob`, and Invalid for one that is too large."""
    descriptor = image.manifest.config
    if descriptor.size > MAX_CONFIG_BYTES:
        raise Invalid("manifest.config.size", descriptor.size, f"at most {MAX_CONFIG_BYTES} bytes")
    fd = os.memfd_create("config", os.MFD_CLOEXEC)
    try:
        await registry.blob(image.reference, descriptor, fd, shown)
        return os.pread(fd, descriptor.size, 0)
    finally:
        os.close(fd)


async def describe(registry: Registry, image: RemoteImage, shown: Shown = None, *, tags: bool = True) -> dict[str, Any]:
    """What `skopeo inspect` tells, under its names.

    Raises: as `fetch_config` and `list_tags`.
    """
    config = document.parse_object(
        await fetch_config(registry, image, shown), what="image config", limit_bytes=MAX_CONFIG_BYTES
    )
    inner = config.get("config")
    inner = inner if isinstance(inner, dict) else {}
    return {
        "Name": image.reference.name,
        "Digest": str(image.digest),
        "RepoTags": await list_tags(registry, image.reference, shown) if tags else [],
        "Created": config.get("created"),
        "DockerVersion": config.get("docker_version") or "",
        "Labels": inner.get("Labels"),
        "Architecture": config.get("architecture") or "",
        "Os": config.get("os") or "",
        "Layers": [str(each.digest) for each in image.manifest.layers],
        "LayersData": [_layer(each) for each in image.manifest.layers],
        "Env": inner.get("Env"),
    }


def _layer(layer: Descriptor) -> dict[str, Any]:
    return {
        "MIMEType": layer.media_type,
        "Digest": str(layer.digest),
        "Size": layer.size,
        "Annotations": layer.annotations or None,
    }
