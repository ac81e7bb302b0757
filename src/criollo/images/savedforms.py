"""How a directory of packed layers becomes a format: the documents that are written beside the blobs. Blocking.

oci      oci-layout, index.json, blobs/sha256/<hex>
docker   manifest.json, <config>.json, blobs/sha256/<layer>        docker save
dir      manifest.json, version, <hex>, signature-<n>                           containers/image, directory transport
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.images.dirlayout import VERSION, VERSION_FILE, write_signatures
from criollo.images.layout import REF_NAME, DockerEntry, blob_path, encode_manifest, synthesize
from criollo.oci.digest import Digest
from criollo.oci.image_spec import OCI_INDEX, OCI_LAYER, OCI_MANIFEST


class Written(NamedTuple):
    """An image in the making: its config, and its layers' sizes; their files are below `blobs`, named by their diff ids."""

    names: tuple[str, ...]
    config: bytes
    sizes: tuple[int, ...]
    manifest: bytes = b""  # where the blobs are those it names; else one is written for what they are now
    signatures: tuple[bytes, ...] = ()  # of that manifest


def write_oci(directory: Path, written: Sequence[Written]) -> None:
    """An OCI image layout."""
    entries = []
    for each in written:
        manifest = manifest_of(each)
        _write_blob(directory / "blobs/sha256", each.config)
        _write_blob(directory / "blobs/sha256", manifest)
        entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
        entries += [{**entry, "annotations": {REF_NAME: name}} for name in each.names] or [entry]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    (directory / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    (directory / "index.json").write_bytes(msgspec.json.encode(index))


def write_docker(directory: Path, written: Sequence[Written]) -> None:
    """What `docker save` writes: an image once, with all its names; who reads an archive may want just one in it."""
    entries: dict[str, DockerEntry] = {}
    for each in written:
        entry = docker_entry(each.names, each.config, [blob_path(layer.digest) for layer in synthesize(each.config).layers])
        (directory / entry.config).write_bytes(each.config)
        if (known := entries.setdefault(entry.config, entry)) is not entry:
            known.tags = list(dict.fromkeys([*(known.tags or ()), *each.names]))
    (directory / "manifest.json").write_bytes(msgspec.json.encode(list(entries.values())))


def docker_entry(names: Sequence[str], config: bytes, layers: Sequence[str]) -> DockerEntry:
    """What docker's manifest.json says of an image."""
    return DockerEntry(config=f"{Digest.of(config).hex}.json", tags=list(names), layers=list(layers))


def write_dir(directory: Path, written: Sequence[Written]) -> None:
    """The directory transport, of one image: blobs stand beside the manifest."""
    [image] = written
    for name in os.listdir(directory / "blobs/sha256"):
        os.rename(directory / "blobs/sha256" / name, directory / name)
    for part in ("blobs/sha256", "blobs"):
        os.rmdir(directory / part)
    _write_blob(directory, image.config)
    (directory / "manifest.json").write_bytes(image.manifest or manifest_of(image))
    write_signatures(directory, "", image.signatures)
    (directory / VERSION_FILE).write_bytes(VERSION)


FORMS: Final[dict[str, Callable[[Path, Sequence[Written]], None]]] = {
    "oci-archive": write_oci,
    "oci-dir": write_oci,
    "docker-archive": write_docker,
    "dir": write_dir,
}


def manifest_of(image: Written) -> bytes:
    """An OCI manifest of the layers as they are now."""
    return encode_manifest(synthesize(image.config, image.sizes), layer_type=OCI_LAYER)


def _write_blob(directory: Path, content: bytes) -> None:
    (directory / Digest.of(content).hex).write_bytes(content)
