"""What containerd has on this node: names from its database, documents and layers from its content store. Only read.

    <root>/io.containerd.metadata.v1.bolt/meta.db                      v1 / <namespace> / images / <name> / target / digest …
    <root>/io.containerd.content.v1.content/blobs/sha256/<digest>      whatever the names lead to, as it travelled

containerd may run meanwhile: its lock is not waited for, since a state that is read while the meta page stays the same is
one state (`wire.bolt`). What its garbage collector takes away under our hands is found missing, with the name of the blob.

Source: containerd, metadata/buckets.go and content/local; images of CRI are in the namespace k8s.io.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.errors import CriolloError, Damaged, Denied, Invalid, NotFound, Unavailable, explain
from criollo.images.layout import Found, LayerFile, blob_path, is_here, manifest_of, read_blob
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import MAX_CONFIG_BYTES, Descriptor
from criollo.oci.reference import Reference
from criollo.wire.bolt import Bucket, read_meta

ROOT: Final = Path("/var/lib/containerd")
NAMESPACES: Final = ("k8s.io", "default")
MAX_IMAGES: Final = 10_000
_DATABASE: Final = "io.containerd.metadata.v1.bolt/meta.db"
_CONTENT: Final = "io.containerd.content.v1.content"
_TRIES: Final = 50  # a transaction of containerd takes milliseconds; a read of ours less


class Stored(NamedTuple):
    """An image of containerd: all names that lead to one target."""

    namespace: str
    target: Descriptor
    names: tuple[Reference, ...]


class Listed(msgspec.Struct, frozen=True):
    """An image of containerd for people; `missing` says why it cannot be taken over, empty if it can."""

    namespace: str
    names: list[str]
    digest: str
    missing: str = ""


def read_images(root: Path, namespaces: Sequence[str]) -> list[Stored]:
    """All images of these namespaces, in the order of their names (blocking).

    Raises:
        NotFound: there is no database of containerd.
        Denied: somebody beside root may write to it.
        Damaged: it is broken.
        Unavailable: it changed all the time.
    """
    path = root / _DATABASE
    with explain(f"read {path}"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("containerd's database", str(path), "say where its root is") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
                raise Denied(f"cannot read {path}: it must be a file of root that nobody else can write to")
            return _consistent(fd, path, namespaces)
        finally:
            os.close(fd)


def _consistent(fd: int, path: Path, namespaces: Sequence[str]) -> list[Stored]:
    """The images of one state of the database, whoever writes to it."""

    def read(offset: int, size: int) -> bytes:
        return os.pread(fd, size, offset)

    for _ in range(_TRIES):
        meta = read_meta(read)
        failure: Damaged | None = None
        found: list[Stored] = []
        try:
            database = Bucket.root(read, meta).bucket(b"v1")
            for namespace in namespaces:
                found += _images(database, namespace)
        except Damaged as error:
            failure = error
        if read_meta(read).txid == meta.txid:
            if failure is not None:
                raise Damaged(f"cannot read {path}: {failure}") from failure
            return found
    raise Unavailable(f"cannot read {path}: containerd writes to it all the time; try again")


def _images(database: Bucket | None, namespace: str) -> list[Stored]:
    """The images of one namespace, those of one target together."""
    inside = database.bucket(namespace.encode()) if database is not None else None
    images = inside.bucket(b"images") if inside is not None else None
    targets: dict[Digest, Descriptor] = {}
    names: dict[Digest, list[Reference]] = {}
    for number, (name, image) in enumerate(images.buckets() if images is not None else ()):
        if number >= MAX_IMAGES:
            raise Damaged(f"namespace {namespace} has more than {MAX_IMAGES} images")
        target = image.bucket(b"target")
        if target is None:
            continue
        descriptor = _descriptor(target)
        targets.setdefault(descriptor.digest, descriptor)
        names.setdefault(descriptor.digest, []).extend(_reference(name))
    return [Stored(namespace, target, tuple(names[digest])) for digest, target in targets.items()]


def _descriptor(target: Bucket) -> Descriptor:
    values = dict(target.values())
    try:
        return Descriptor(
            media_type=values.get(b"mediatype", b"").decode(),
            digest=Digest.parse(values.get(b"digest", b"").decode(), "target of an image"),
            size=0,
        )
    except (UnicodeDecodeError, Invalid) as error:
        raise Damaged(f"an image leads to nothing: {error}") from error


def _reference(name: bytes) -> Iterator[Reference]:
    """The reference of that name; CRI's third name of each image, its bare id, is none."""
    try:
        text = name.decode()
        if not text.startswith("sha256:"):
            yield Reference.parse(text)
    except (UnicodeDecodeError, Invalid):
        return


def open_content(root: Path) -> int:
    """A descriptor of the content store, to be closed. Raises NotFound."""
    try:
        return files.open_directory(root / _CONTENT)
    except OSError as error:
        raise NotFound("containerd's content store", str(root / _CONTENT), error.strerror or "") from error


def find_content(content: int, stored: Stored) -> Found:
    """What is to be loaded of an image (blocking): for this platform, or for the one of an index that is there.

    Raises:
        NotFound: it is not for this platform, or its layers were not kept.
        Damaged: a document is not there, or not what its digest says.
        NotAnImage, Unsupported, Invalid: its manifest cannot be used.
    """
    manifest, raw = manifest_of(content, stored.target, present_only=True)
    config = read_blob(content, manifest.config, MAX_CONFIG_BYTES)
    gone = [layer.digest for layer in manifest.layers if not is_here(content, layer.digest)]
    if gone:
        raise NotFound(
            "layer", gone[0], f"containerd did not keep {len(gone)} of {len(manifest.layers)} layers packed; pull the image"
        )
    repositories = dict.fromkeys(name.name for name in stored.names)
    digests = dict.fromkeys((stored.target.digest, Digest.of(raw)))
    return Found(
        names=tuple(str(name) for name in stored.names if name.digest is None),
        digests=tuple(f"{repository}@{digest}" for repository in repositories for digest in digests),
        manifest=manifest,
        raw_manifest=raw,
        config=config,
        layer_files=tuple(LayerFile(blob_path(layer.digest), layer.digest) for layer in manifest.layers),
    )


def list_images(root: Path, namespaces: Sequence[str]) -> list[Listed]:
    """All images of containerd, each looked at as far as its documents and the presence of its layers (blocking).

    Raises:
        As `read_images` and `open_content`.
    """
    listed = []
    content = open_content(root)
    try:
        for stored in read_images(root, namespaces):
            try:
                find_content(content, stored)
                missing = ""
            except CriolloError as error:
                missing = str(error)
            names = [str(name) for name in stored.names]
            listed.append(Listed(stored.namespace, names, str(stored.target.digest), missing))
    finally:
        os.close(content)
    return listed
