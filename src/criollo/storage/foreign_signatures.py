"""The signatures that containers/storage keeps of an image: all of a manifest in one document, their sizes in the metadata.

    signature-<hex of the manifest's digest>     sizes under signatures-sizes, by digest
    signatures                                   of older tools; sizes under signature-sizes

They are only taken apart here; the trust room says what they are worth.
"""

from typing import Final, NamedTuple

import msgspec

from criollo.oci.digest import Digest
from criollo.oci.signature import MAX_SIGNATURES

MAX_BYTES: Final = 4 << 20  # of all signatures of a manifest


class _Metadata(msgspec.Struct):
    sizes: list[int] | None = msgspec.field(name="signature-sizes", default=None)
    sizes_by_digest: dict[str, list[int] | None] | None = msgspec.field(name="signatures-sizes", default=None)


class Stored(NamedTuple):
    """The document that the signatures of a manifest are in, and their sizes in it."""

    document: str
    sizes: tuple[int, ...]


def find(metadata: str, digest: Digest) -> Stored | None:
    """Where the signatures of a manifest are; None where there are none, or what is said of them makes no sense."""
    try:
        said = msgspec.json.decode(metadata or "{}", type=_Metadata)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    named = (said.sizes_by_digest or {}).get(digest)
    found = Stored(f"signature-{digest.hex}", tuple(named)) if named else Stored("signatures", tuple(said.sizes or ()))
    is_sound = (
        0 < len(found.sizes) <= MAX_SIGNATURES and all(size > 0 for size in found.sizes) and sum(found.sizes) <= MAX_BYTES
    )
    return found if is_sound else None


def split(content: bytes, sizes: tuple[int, ...]) -> tuple[bytes, ...]:
    """The signatures in a document; none when it has another length."""
    if len(content) != sum(sizes):
        return ()
    found, at = [], 0
    for size in sizes:
        found.append(content[at : at + size])
        at += size
    return tuple(found)
