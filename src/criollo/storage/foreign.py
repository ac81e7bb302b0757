"""Images in a store of containers/storage (podman, buildah, skopeo, CRI-O): read in place, never written, never locked.

    <store>/overlay-images/images.json       records of images: id, digest, names, topmost layer
    <store>/overlay-images/<id>/manifest     the manifest's exact bytes
    <store>/overlay-images/<id>/=<base64>    other documents by name: the config under its digest, an index under its own
    <store>/overlay-layers/layers.json       records of layers: id, parent, diff digest and size
    <store>/overlay/<layer>/diff/            the tree of a layer, as our overlay driver wants it

Its tools replace both JSON files by rename, layers before the images that use them and after; so images are read first, and no
lock is taken. A store is used only when nobody but root can write to it: manifests and configs are checked by their
digests, but trees cannot be, short of making tars of them. Everything is opened beneath the store without following links.
"""

import base64
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from criollo.errors import CriolloError, Damaged, Denied, Invalid, NotFound, Unsupported, explain
from criollo.linux import files
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    MAX_CONFIG_BYTES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    Index,
    check_layers,
    decode_config,
    decode_manifest,
)
from criollo.storage import foreign_signatures

IMAGES: Final = "overlay-images/images.json"
LAYERS: Final = "overlay-layers/layers.json"
MAX_RECORDS_BYTES: Final = 32 << 20
MAX_DOCUMENTS: Final = 16  # manifests and indexes beside the one that counts

_ID: Final = re.compile(r"[0-9a-f]{64}")
_PLAIN: Final = re.compile(r"[a-z0-9.]+")
_INDEX_PREFIX: Final = "manifest-"
_UNSAYABLE: Final = re.compile(r"[,:\\\x00-\x1f]")  # what options of a mount cannot carry
_STRANGE: Final = {  # attributes that give a tree another meaning than its files have
    "trusted.overlay.metacopy": "files without their content (metacopy)",
    "trusted.overlay.redirect": "renamed directories (redirect_dir)",
    "user.containers.override_stat": "owners and modes kept beside the files (force_mask)",
}


class ImageRecord(msgspec.Struct, frozen=True):
    """What images.json says of an image; the rest of it is not for us."""

    id: str
    digest: str = ""
    names: tuple[str, ...] | None = None
    layer: str = ""
    documents: tuple[str, ...] | None = msgspec.field(name="big-data-names", default=None)
    metadata: str = ""


class LayerRecord(msgspec.Struct, frozen=True):
    """What layers.json says of a layer."""

    id: str
    parent: str = ""
    diff_digest: str = msgspec.field(name="diff-digest", default="")
    diff_size: int = msgspec.field(name="diff-size", default=0)
    flags: dict[str, Any] | None = None
    uids: tuple[Any, ...] | None = msgspec.field(name="uidmap", default=None)
    gids: tuple[Any, ...] | None = msgspec.field(name="gidmap", default=None)


class ForeignImage(NamedTuple):
    """An image that can be used: its checked documents, and its layers' ids, bottom first."""

    record: ImageRecord
    config_digest: Digest
    manifest: bytes
    config: bytes
    digests: tuple[Digest, ...]  # of the manifest, then of the indexes that lead to it
    layers: tuple[str, ...]
    size_bytes: int
    signatures: tuple[bytes, ...] = ()  # of the manifest, unverified


class Contents(NamedTuple):
    """What a store holds, and why some of it cannot be used."""

    images: tuple[ForeignImage, ...]
    refused: tuple[tuple[str, CriolloError], ...]


Stamp = tuple[tuple[int, int, int], ...]


def layer_name(store: Path, layer_id: str) -> str:
    """The name by which our mounts know a layer of a store; never that of one of ours."""
    return hashlib.sha256(f"{store}\0{layer_id}".encode()).hexdigest()[:32]


def layer_path(store: Path, layer_id: str) -> Path:
    """Where the tree of a layer is."""
    return store / "overlay" / layer_id / "diff"


def stamp(store: Path) -> Stamp:
    """Changes whenever the store's records do, or who may write them (blocking)."""
    found = []
    for path in (store, store / IMAGES, store / LAYERS):
        try:
            status = os.stat(path)
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_ino, status.st_ctime_ns, status.st_size))
    return tuple(found)


def read_store(store: Path, earlier: Mapping[ImageRecord, ForeignImage]) -> Contents:
    """All images of a store (blocking); documents of those in `earlier` are not read again.

    Raises:
        NotFound: there is no such directory.
        Denied: somebody beside root may write to it.
        Unsupported, Invalid: it is of another driver or kind; its records are malformed.
    """
    with _opened(store) as root:
        images = _records(root, IMAGES, ImageRecord)
        layers = {layer.id: layer for layer in _records(root, LAYERS, LayerRecord)}
        seen: set[str] = set()
        found: list[ForeignImage] = []
        refused: list[tuple[str, CriolloError]] = []
        for record in images:
            try:
                image = earlier.get(record) or _documents(root, record)
                if image is not None:
                    found.append(_with_layers(root, image, layers, seen))
            except CriolloError as error:
                refused.append((record.id[:100], error))
            except OSError as error:
                refused.append((record.id[:100], Damaged(f"{error.strerror} ({error.filename})")))
        return Contents(tuple(found), tuple(refused))


def check_trees(store: Path, layer_ids: Iterable[str]) -> None:
    """See that layers can be mounted now (blocking).

    Raises:
        Damaged: one is not there.
        Denied, Unsupported: as `read_store`.
    """
    with _opened(store) as root:
        for layer_id in layer_ids:
            _check_tree(root, layer_id)


@contextmanager
def _opened(store: Path) -> Iterator[int]:
    if _UNSAYABLE.search(os.fspath(store)):
        raise Invalid("image store", str(store), "a path without comma, colon, backslash and control characters")
    with explain(f"open image store {store}"):
        try:
            root = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound("image store", str(store), "no such directory, or a link") from error
    try:
        with explain(f"read image store {store}"):
            _only_root_writes(os.fstat(root), str(store))
            for directory in store.parents:
                _only_root_writes(os.lstat(directory), str(directory), is_parent=True)
            _check_kind(root)
            yield root
    finally:
        os.close(root)


def _only_root_writes(status: os.stat_result, shown: str, *, is_parent: bool = False) -> None:
    """Refuse what others may replace. In a parent like /tmp they cannot replace what is root's."""
    mode = stat.S_IMODE(status.st_mode)
    may_write = mode & 0o022 and not (is_parent and mode & stat.S_ISVTX)
    if status.st_uid != 0 or may_write:
        raise Denied(
            f"cannot use an image store: {shown} belongs to user {status.st_uid} and has mode {mode:04o}; "
            "it must be root's and writable for nobody else, since containers run what is there"
        )


def _check_kind(root: int) -> None:
    if not os.access("overlay-images", os.F_OK, dir_fd=root):
        raise Unsupported("cannot use an image store: it has no directory overlay-images, so no images of the overlay driver")
    if _read(root, "overlay/.has-mount-program", 64, missing=b"").strip() == b"true":
        raise Unsupported("cannot use an image store: its layers were made by a mount program (fuse-overlayfs)")


def _records(root: int, path: str, kind: type[Any]) -> list[Any]:
    raw = _read(root, path, MAX_RECORDS_BYTES, missing=b"")
    if not raw.strip():
        return []
    try:
        return msgspec.json.decode(raw, type=list[kind] | None) or []  # type: ignore[valid-type]
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Invalid(path, str(error), "the records of containers/storage") from error


def _read(directory: int, path: str, limit_bytes: int, *, missing: bytes | None = None) -> bytes:
    """A file that only root can have written; `missing` is for one that is not there."""
    try:
        fd = files.open_in_root(directory, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=files.BENEATH)
    except FileNotFoundError as error:
        if missing is not None:
            return missing
        raise Damaged(f"{path} is missing") from error
    except OSError as error:
        raise Damaged(f"{path} cannot be opened ({error.strerror}); links are not followed") from error
    try:
        _only_root_writes(os.fstat(fd), path)
        return files.read_limited(fd, limit_bytes, name=path)
    finally:
        os.close(fd)


def _documents(root: int, record: ImageRecord) -> ForeignImage | None:
    """An image's documents, checked, its layers yet unknown; None for a list of manifests, which nobody can run."""
    if not _ID.fullmatch(record.id):
        raise Invalid("id", record.id, "64 lower-case hex digits")
    directory = f"overlay-images/{record.id}"
    raw = _read(root, f"{directory}/manifest", MAX_MANIFEST_BYTES)
    digest = Digest.of(raw)
    if record.digest and not Digest.parse(record.digest).matches(raw):
        raise Damaged(f"its manifest is not what its digest {record.digest} says")
    manifest = decode_manifest(raw)
    if isinstance(manifest, Index):
        return None
    config = _read(root, f"{directory}/{_file_of(manifest.config.digest)}", MAX_CONFIG_BYTES)
    if not manifest.config.digest.matches(config):
        raise Damaged(f"its config is not what its digest {manifest.config.digest} says")
    check_layers(manifest, decode_config(config))
    digests = dict.fromkeys((digest, *_further(root, record, directory)))
    signatures = _signatures(root, record, directory, digest)
    return ForeignImage(record, manifest.config.digest, raw, config, tuple(digests), (), 0, signatures)


def _signatures(root: int, record: ImageRecord, directory: str, digest: Digest) -> tuple[bytes, ...]:
    stored = foreign_signatures.find(record.metadata, digest)
    if stored is None:
        return ()
    content = _read(root, f"{directory}/{_file_of(stored.document)}", foreign_signatures.MAX_BYTES, missing=b"")
    return foreign_signatures.split(content, stored.sizes)


def _further(root: int, record: ImageRecord, directory: str) -> Iterator[Digest]:
    """Digests of the other manifests and indexes that the image is known by."""
    names = [name for name in record.documents or () if name.startswith(_INDEX_PREFIX)]
    for name in names[:MAX_DOCUMENTS]:
        digest = Digest.parse(name.removeprefix(_INDEX_PREFIX), "big-data-names")
        if not digest.matches(_read(root, f"{directory}/{_file_of(name)}", MAX_MANIFEST_BYTES)):
            raise Damaged(f"its document {name} is not what its digest says")
        yield digest


def _file_of(name: str) -> str:
    """The file of a document: its name, or base64 of one that is not plain lower-case letters, digits and dots."""
    return name if _PLAIN.fullmatch(name) else "=" + base64.b64encode(name.encode()).decode()


def _with_layers(root: int, image: ForeignImage, layers: Mapping[str, LayerRecord], seen: set[str]) -> ForeignImage:
    """The image with its layers, each checked against its config; trees in `seen` have been looked at."""
    diff_ids = decode_config(image.config).rootfs.diff_ids
    chain = _chain(image.record.layer, layers)
    if len(chain) != len(diff_ids):
        raise Invalid("layer", f"{len(chain)} layers", f"{len(diff_ids)}, as the image's config says")
    for layer, diff_id in zip(chain, diff_ids, strict=True):
        if layer.diff_digest and layer.diff_digest != diff_id:
            raise Damaged(f"its layer {layer.id} is {layer.diff_digest}, its config says {diff_id}")
        if layer.id not in seen:
            _check_tree(root, layer.id)
            seen.add(layer.id)
    size_bytes = sum(max(0, layer.diff_size) for layer in chain) + len(image.manifest) + len(image.config)
    return image._replace(layers=tuple(layer.id for layer in chain), size_bytes=size_bytes)


def _chain(top: str, layers: Mapping[str, LayerRecord]) -> list[LayerRecord]:
    """A layer and all below it, bottom first."""
    chain: list[LayerRecord] = []
    at = top
    while at:
        layer = layers.get(at)
        if layer is None:
            raise Damaged(f"its layer {at[:100]!r} is not in {LAYERS}")
        if not _ID.fullmatch(layer.id):
            raise Invalid("layer", layer.id, "64 lower-case hex digits")
        if (layer.flags or {}).get("incomplete"):
            raise Damaged(f"its layer {layer.id} is incomplete")
        if layer.uids or layer.gids:
            raise Unsupported(f"its layer {layer.id} has shifted owners (uidmap, gidmap)")
        chain.append(layer)
        if len(chain) > MAX_LAYERS:
            raise Invalid("layer", "a chain of layers without end", f"at most {MAX_LAYERS} layers")
        at = layer.parent
    return chain[::-1]


def _check_tree(root: int, layer_id: str) -> None:
    place = f"overlay/{layer_id}"
    try:
        fd = files.open_in_root(root, f"{place}/diff", os.O_RDONLY | os.O_DIRECTORY, resolve=files.BENEATH)
    except OSError as error:
        raise Damaged(f"its layer {layer_id} has no directory diff ({error.strerror}); links are not followed") from error
    try:
        _only_root_writes(os.stat(place, dir_fd=root, follow_symlinks=False), place)
        if os.access(f"{place}/composefs-data", os.F_OK, dir_fd=root, follow_symlinks=False):
            raise Unsupported(f"its layer {layer_id} is of composefs")
        strange = _STRANGE.keys() & set(os.listxattr(fd))
    finally:
        os.close(fd)
    if strange:
        raise Unsupported(f"its layer {layer_id} has {_STRANGE[min(strange)]}")
