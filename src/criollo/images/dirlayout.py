"""The directory transport of containers/image: one image with its signatures in a directory.

    version                        Directory Transport Version: 1.1
    manifest.json                  a manifest, or an index
    <hex>                          blobs, by the hex digits of their digests
    signature-1, signature-2 …     of the manifest
    <hex>.manifest.json, <hex>.signature-1 …      of a manifest that the index lists

A directory has no place for a name. Everything is opened beneath its descriptor and read to a limit: it may be hostile.
Source: containers/image, docs/containers-transports.5.md and directory/directory_transport.go.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import Damaged, Invalid
from criollo.linux import files
from criollo.oci import signature
from criollo.oci.digest import Digest
from criollo.oci.image_spec import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES,
    Manifest,
    decode_manifest,
)
from criollo.oci.platform import host_platform, select

VERSION_FILE: Final = "version"
VERSION: Final = b"Directory Transport Version: 1.1\n"
_KNOWN: Final = b"Directory Transport Version: 1."
_MAX_SIGNATURE_BYTES: Final = 4 << 20  # together


class Image(NamedTuple):
    """The image of such a directory that runs on this platform."""

    manifest: Manifest
    raw: bytes
    digests: tuple[Digest, ...]  # of the index, if any, and its own
    config: bytes
    signatures: tuple[bytes, ...]


def is_dir(raw: bytes) -> bool:
    """Whether a manifest.json is that of a directory: an object, where docker's is a list."""
    return raw.lstrip()[:1] == b"{"


def read_dir(directory: int, raw: bytes) -> Image:
    """The image whose manifest.json is `raw`. Blocking.

    Raises:
        Invalid: a document breaks its rules, or the directory is of a version that nobody knows.
        NotFound: an index has nothing for this platform.
        Damaged: a document is missing, or not what its digest says.
    """
    check_version(directory)
    digests, prefix = [Digest.of(raw)], ""
    for _ in range(MAX_INDEX_DEPTH + 1):
        document = decode_manifest(raw)
        if isinstance(document, Manifest):
            config = _read(directory, document.config.digest.hex, document.config.digest, MAX_CONFIG_BYTES)
            return Image(document, raw, tuple(digests), config, read_signatures(directory, prefix))
        chosen = select(host_platform(), document.manifests)
        raw = read_document(directory, chosen.digest)
        prefix = f"{chosen.digest.hex}."
        digests.append(chosen.digest)
    raise Invalid("manifest.json", "an index of indexes", f"at most {MAX_INDEX_DEPTH} levels of indexes")


def check_version(directory: int) -> None:
    """Raises Invalid: the directory is of a version that nobody knows."""
    said = files.read_in_root(directory, VERSION_FILE, 1024)
    if said is not None and not said.startswith(_KNOWN):
        raise Invalid(VERSION_FILE, said[:60], _KNOWN.decode())


def document_name(digest: Digest) -> str:
    """The file of a manifest that the index lists."""
    return f"{digest.hex}.manifest.json"


def read_document(directory: int, digest: Digest) -> bytes:
    """A manifest that the index lists. Raises Damaged."""
    return _read(directory, document_name(digest), digest, MAX_MANIFEST_BYTES)


def read_signatures(directory: int, prefix: str) -> tuple[bytes, ...]:
    """The signatures whose files begin with `prefix`. Raises Invalid: too many, or too long ones."""
    found: list[bytes] = []
    left = _MAX_SIGNATURE_BYTES
    for number in range(1, signature.MAX_SIGNATURES + 2):
        blob = files.read_in_root(directory, f"{prefix}signature-{number}", min(left, signature.MAX_BYTES))
        if blob is None:
            return tuple(found)
        found.append(blob)
        left -= len(blob)
    raise Invalid("signatures", f"over {signature.MAX_SIGNATURES}", f"at most {signature.MAX_SIGNATURES} of one manifest")


def write_signatures(directory: Path, prefix: str, blobs: Sequence[bytes]) -> None:
    """Write them where `read_signatures` looks. Blocking."""
    for number, blob in enumerate(blobs, 1):
        (directory / f"{prefix}signature-{number}").write_bytes(blob)


def _read(directory: int, name: str, digest: Digest, limit_bytes: int) -> bytes:
    content = files.read_in_root(directory, name, limit_bytes)
    if content is None:
        raise Damaged(f"{name} is missing from the directory; copy the image again")
    if not digest.matches(content):
        raise Damaged(f"{name} is not what its digest says; copy the image again")
    return content
