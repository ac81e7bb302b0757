"""The shapes that images travel in as files: an OCI image layout, docker's archive, a `dir`; what each names.

    oci-layout, index.json, blobs/<algorithm>/<hex>          OCI image-spec, image-layout.md
    manifest.json, <config>.json, <layer>.tar                docker save
    manifest.json, <hex>, signature-1                        `dirlayout`

Everything is opened beneath the directory's descriptor and read to a limit: archives are hostile bytes.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Damaged, Invalid, NotFound, explain
from criollo.images import dirlayout
from criollo.linux import files
from criollo.model.image import Image
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
    NotAnImage,
    decode_config,
    decode_manifest,
)
from criollo.oci.platform import host_platform, select
from criollo.oci.reference import Reference

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"


class NamedImage(NamedTuple):
    """An image that was loaded or saved, by these names; the note is for whoever asked for it."""

    image: Image
    names: tuple[str, ...]
    note: str = ""


class LayerFile(NamedTuple):
    """A layer's file beneath the directory, and its digest where that is not the diff id."""

    path: str
    digest: Digest | None = None


class Found(NamedTuple):
    """An image in a layout: its names, its documents, its layers' files, bottom first; the signatures of its manifest."""

    names: tuple[str, ...]
    digests: tuple[str, ...]
    manifest: Manifest
    raw_manifest: bytes
    config: bytes
    layer_files: tuple[LayerFile, ...]
    signatures: tuple[bytes, ...] = ()


class DockerEntry(msgspec.Struct):
    """One image of docker's manifest.json."""

    config: str = msgspec.field(name="Config")
    layers: list[str] = msgspec.field(name="Layers")
    tags: list[str] | None = msgspec.field(name="RepoTags", default=None)


def read_layout(directory: int, *, name: str = "") -> Iterator[Found]:
    """The images of the layout that run on this platform, read one by one; `name` is for those that bring none. Blocking.

    Raises:
        Invalid: it is no layout, or a document breaks its rules.
        Damaged: a document is not what its digest says.
        NotFound: an index has nothing for this platform.
    """
    with explain("read the archive"):
        index = files.read_in_root(directory, "index.json", MAX_MANIFEST_BYTES)
        if index is not None:
            yield from _oci(directory, index, name)
            return
        manifest = files.read_in_root(directory, "manifest.json", MAX_MANIFEST_BYTES)
        if manifest is None:
            raise Invalid("archive", "neither index.json nor manifest.json in it", "an OCI layout, a docker archive or a dir")
        if dirlayout.is_dir(manifest):
            yield _dir(directory, manifest, name)
        else:
            yield from _docker(directory, manifest, name)


def transport_of(directory: int, path: Path) -> str:
    """What container tools call images from `path`, whose layout is in `directory`; blocking."""
    with explain("read the archive"):
        if files.read_in_root(directory, "index.json", MAX_MANIFEST_BYTES) is None:
            manifest = files.read_in_root(directory, "manifest.json", MAX_MANIFEST_BYTES)
            return "dir" if manifest is not None and dirlayout.is_dir(manifest) else "docker-archive"
    return "oci" if path.is_dir() else "oci-archive"


def _oci(directory: int, raw_index: bytes, given: str) -> Iterator[Found]:
    index = decode_manifest(raw_index)
    if not isinstance(index, Index):
        raise Invalid("index.json", "a manifest", "an image index")
    for entry in index.manifests:
        if not _may_run(entry):
            continue
        try:
            manifest, raw = manifest_of(directory, entry)
        except NotAnImage:
            continue  # a signature or another attachment
        name = _name(entry.annotations, given)
        repository, tagged = (name.name, str(name)) if name is not None and name.digest is None else ("", "")
        yield Found(
            names=(tagged,) if tagged else (),
            digests=tuple(f"{repository}@{digest}" for digest in {entry.digest, Digest.of(raw)} if repository),
            manifest=manifest,
            raw_manifest=raw,
            config=read_blob(directory, manifest.config, MAX_CONFIG_BYTES),
            layer_files=tuple(LayerFile(blob_path(layer.digest), layer.digest) for layer in manifest.layers),
        )


def _may_run(entry: Descriptor) -> bool:
    try:
        select(host_platform(), [entry])
    except NotFound:
        return False
    return True


def manifest_of(directory: int, entry: Descriptor, *, present_only: bool = False) -> tuple[Manifest, bytes]:
    """The manifest that an entry leads to, through indexes; `present_only`: of what they list, only what is there counts.

    Raises:
        NotFound: an index has nothing for this platform.
        Damaged, Invalid: a document is not what its digest says, or is malformed.
    """
    for _ in range(MAX_INDEX_DEPTH + 1):
        raw = read_blob(directory, entry, MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, entry.media_type)
        if isinstance(document, Manifest):
            return document, raw
        listed = [each for each in document.manifests if is_here(directory, each.digest)] if present_only else ()
        if present_only and not listed:
            raise NotFound("manifest", entry.digest, "of the platforms in this index none is here")
        entry = select(host_platform(), listed or document.manifests)
    raise Invalid("index.json", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")


def docker_entries(raw: bytes) -> list[DockerEntry]:
    """The images of docker's manifest.json. Raises Invalid."""
    try:
        entries = msgspec.json.decode(raw, type=list[DockerEntry])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Invalid("manifest.json", str(error), "docker's list of images") from error
    for entry in entries:
        if len(entry.layers) > MAX_LAYERS:
            raise Invalid("manifest.json Layers", len(entry.layers), f"at most {MAX_LAYERS}")
    return entries


def _docker(directory: int, raw: bytes, given: str) -> Iterator[Found]:
    for entry in docker_entries(raw):
        config = files.read_in_root(directory, entry.config, MAX_CONFIG_BYTES)
        if config is None:
            raise Invalid("manifest.json Config", entry.config, "a file of the archive")
        tags = [Reference.parse(tag, field="manifest.json RepoTags") for tag in entry.tags or [given] if tag]
        manifest = synthesize(config)
        yield Found(
            names=tuple(str(tag) for tag in tags if tag.digest is None),
            digests=(),  # the manifest is ours: no registry has it
            manifest=manifest,
            raw_manifest=encode_manifest(manifest),
            config=config,
            layer_files=tuple(LayerFile(path) for path in entry.layers),
        )


def _dir(directory: int, raw: bytes, given: str) -> Found:
    image = dirlayout.read_dir(directory, raw)
    name = Reference.parse(given, field="name") if given else None
    if name is not None and name.digest is not None and name.digest not in image.digests:
        raise Invalid("name", given, f"the digest of what is there: {image.digests[-1]}")
    tagged = (str(name),) if name is not None and name.digest is None else ()
    return Found(
        names=tagged,
        digests=tuple(f"{name.name}@{digest}" for digest in dict.fromkeys(image.digests)) if name is not None else (),
        manifest=image.manifest,
        raw_manifest=image.raw,
        config=image.config,
        layer_files=tuple(LayerFile(layer.digest.hex, layer.digest) for layer in image.manifest.layers),
        signatures=image.signatures,
    )


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


def is_here(directory: int, digest: Digest) -> bool:
    """Whether the blob has a file. Its bytes are not looked at."""
    return os.access(blob_path(digest), os.F_OK, dir_fd=directory, follow_symlinks=False)


def read_blob(directory: int, descriptor: Descriptor, limit_bytes: int) -> bytes:
    """A document of the layout. Raises Damaged: it is missing, or not what its digest says."""
    content = files.read_in_root(directory, blob_path(descriptor.digest), limit_bytes)
    if content is None:
        raise Damaged(f"blob {descriptor.digest} is missing from the layout; make the archive again")
    if not descriptor.digest.matches(content):
        raise Damaged(f"blob {descriptor.digest} is not what its digest says; make the archive again")
    return content


def broken_off(path: Path, kind: str, error: Damaged) -> Damaged:
    """What is told of a file that should have been such a tar; who reads it knows layers only."""
    return Damaged(f"cannot read {path}: it is no {kind}, or broken off ({error}); make it again")


def blob_path(digest: Digest) -> str:
    """Where a blob is in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _name(annotations: dict[str, str], given: str) -> Reference | None:
    """The name that an entry brings, else the caller's; a bare tag belongs to the caller's name."""
    brought = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME, "")
    if "/" in brought or ":" in brought:
        return Reference.parse(brought, field=REF_NAME)
    if not given:
        return None
    name = Reference.parse(given, field="name")
    return name.with_tag(brought) if brought and ":" not in given.rpartition("/")[2] else name
