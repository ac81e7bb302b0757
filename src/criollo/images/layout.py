"""The two shapes that images travel in as files: an OCI image layout, and docker's archive; what each names.

    oci-layout, index.json, blobs/<algorithm>/<hex>          OCI image-spec, image-layout.md
    manifest.json, <config>.json, <layer>.tar                docker save

Everything is opened beneath the directory's descriptor and read to a limit: archives are hostile bytes.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Damaged, Invalid
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    DOCKER_LAYER,
    MAX_CONFIG_BYTES,
    MAX_INDEX_DEPTH,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    decode_config,
    decode_manifest,
)
from criollo.oci.platform import host_platform, select
from criollo.oci.reference import Reference

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"


class Found(NamedTuple):
    """An image in a layout: its documents, and for each layer the file beneath the directory."""

    names: tuple[str, ...]
    manifest: Manifest
    raw_manifest: bytes
    config: bytes
    layer_files: tuple[str, ...]


class _DockerEntry(msgspec.Struct):
    """One image of docker's manifest.json."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


def read_layout(directory: int, *, name: str = "") -> list[Found]:
    """Every image of the layout that runs on this platform; `name` is for those that bring none.

    Raises:
        Invalid: it is no layout, or a document breaks its rules.
        Damaged: a document is not what its digest says.
        Unsupported: an image has nothing for this platform.
    """
    index = files.read_in_root(directory, "index.json", MAX_MANIFEST_BYTES)
    if index is not None:
        return list(_oci(directory, index, name))
    manifest = files.read_in_root(directory, "manifest.json", MAX_MANIFEST_BYTES)
    if manifest is not None:
        return list(_docker(directory, manifest, name))
    raise Invalid("archive", "neither index.json nor manifest.json in it", "an OCI layout or a docker archive")


def _oci(directory: int, raw_index: bytes, name: str) -> Iterator[Found]:
    index = decode_manifest(raw_index)
    if not isinstance(index, Index):
        raise Invalid("index.json", "a manifest", "an image index")
    for entry in index.manifests:
        descriptor, raw = entry, _blob(directory, entry, MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, descriptor.media_type)
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(document, Manifest):
                break
            descriptor = select(host_platform(), document.manifests)
            raw = _blob(directory, descriptor, MAX_MANIFEST_BYTES)
            document = decode_manifest(raw, descriptor.media_type)
        if not isinstance(document, Manifest):
            raise Invalid("index.json", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")
        config = _blob(directory, document.config, MAX_CONFIG_BYTES)
        layers = tuple(_path(layer.digest) for layer in document.layers)
        yield Found(_names(entry.annotations, name), document, raw, config, layers)


def _docker(directory: int, raw: bytes, name: str) -> Iterator[Found]:
    try:
        entries = msgspec.json.decode(raw, type=list[_DockerEntry])
    except msgspec.MsgspecError as error:
        raise Invalid("manifest.json", str(error), "docker's list of images") from error
    for entry in entries:
        if len(entry.layers) > MAX_LAYERS:
            raise Invalid("manifest.json Layers", len(entry.layers), f"at most {MAX_LAYERS}")
        config = files.read_in_root(directory, entry.config, MAX_CONFIG_BYTES)
        if config is None:
            raise Invalid("manifest.json Config", entry.config, "a file of the archive")
        manifest = synthesize(config)
        tags = tuple(str(Reference.parse(tag, field="manifest.json RepoTags")) for tag in entry.tags or [])
        raw_manifest = encode_manifest(manifest)
        yield Found(tags or _names({}, name), manifest, raw_manifest, config, tuple(entry.layers))


def synthesize(config: bytes, sizes: tuple[int, ...] = ()) -> Manifest:
    """A manifest for layers that travel uncompressed: their digests are the config's diff ids."""
    diff_ids = decode_config(config).rootfs.diff_ids
    sized = sizes or (0,) * len(diff_ids)
    layers = tuple(
        Descriptor(media_type=DOCKER_LAYER, digest=diff_id, size=size) for diff_id, size in zip(diff_ids, sized, strict=True)
    )
    described = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size=len(config))
    return Manifest(media_type=OCI_MANIFEST, config=described, layers=layers)


def encode_manifest(manifest: Manifest, *, layer_type: str = "") -> bytes:
    """A manifest's bytes as we write them; `layer_type` replaces the layers' media type."""

    def described(descriptor: Descriptor, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": str(descriptor.digest), "size": descriptor.size}

    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(manifest.config, manifest.config.media_type),
            "layers": [described(layer, layer_type or layer.media_type) for layer in manifest.layers],
        }
    )


def _blob(directory: int, descriptor: Descriptor, limit_bytes: int) -> bytes:
    content = files.read_in_root(directory, _path(descriptor.digest), limit_bytes)
    if content is None:
        raise Damaged(f"blob {descriptor.digest} is missing from the layout; make the archive again")
    if not descriptor.digest.matches(content):
        raise Damaged(f"blob {descriptor.digest} is not what its digest says; make the archive again")
    return content


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _names(annotations: dict[str, str], given: str) -> tuple[str, ...]:
    """The full name of an image: the caller's first, else an annotation's; a bare tag goes with the caller's name."""
    annotated = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME, "")
    if given:
        reference = Reference.parse(given, field="name")
        return (str(reference),)
    if "/" in annotated or (":" in annotated and "@" not in annotated):
        return (str(Reference.parse(annotated, field=REF_NAME)),)
    return ()
