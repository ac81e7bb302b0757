"""What a signature says once it is verified: which manifest, under which name.

Read strictly, as the tools that write it do: exactly the fields of the format in `critical`, anything in `optional`.

Source: containers-signature(5), section JSON data format; cosign's SIGNATURE_SPEC, section Simple Signing.
"""

from typing import Final, NamedTuple

import msgspec

from criollo.errors import Invalid
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.signature import MAX_BYTES, SignatureKind
from criollo.trust.fields import an_object, exactly, text

_MOMENTS: Final = 2**63
_TYPES: Final = {SignatureKind.SIMPLE: "atomic container signature", SignatureKind.SIGSTORE: "cosign container image signature"}


class Claim(NamedTuple):
    """That the manifest of `digest` is `name`."""

    digest: Digest
    name: str


def parse_payload(raw: bytes, kind: SignatureKind) -> Claim:
    """The claim of a payload.

    Raises:
        Invalid: it is no payload of this kind.
    """
    where = "payload"
    whole = document.parse_object(raw, what=where, limit_bytes=MAX_BYTES)
    exactly(whole, {"critical", "optional"}, where)
    critical = an_object(whole["critical"], f"{where}.critical")
    exactly(critical, {"type", "image", "identity"}, f"{where}.critical")
    if critical["type"] != _TYPES[kind]:
        raise Invalid(f"{where}.critical.type", critical["type"], repr(_TYPES[kind]))
    _check_optional(whole["optional"], kind)
    image = an_object(critical["image"], f"{where}.critical.image")
    identity = an_object(critical["identity"], f"{where}.critical.identity")
    exactly(image, {"docker-manifest-digest"}, f"{where}.critical.image")
    exactly(identity, {"docker-reference"}, f"{where}.critical.identity")
    digest = Digest.parse(text(image["docker-manifest-digest"], f"{where}.docker-manifest-digest"), f"{where} digest")
    return Claim(digest, text(identity["docker-reference"], f"{where}.docker-reference"))


def make_payload(kind: SignatureKind, digest: Digest, name: str, *, creator: str, now: int) -> bytes:
    """The text to be signed: that the manifest is `name`. `now` is in seconds since the epoch."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": str(digest)},
        "type": _TYPES[kind],
    }
    return msgspec.json.encode({"critical": critical, "optional": {"creator": creator, "timestamp": now}})


def _check_optional(value: object, kind: SignatureKind) -> None:
    if value is None and kind is SignatureKind.SIGSTORE:  # what cosign writes when there is nothing
        return
    optional = an_object(value, "payload.optional")
    creator, timestamp = optional.get("creator"), optional.get("timestamp")  # null says nothing
    if creator is not None and not isinstance(creator, str):
        raise Invalid("payload.optional.creator", type(creator).__name__, "a string")
    if timestamp is not None and not _is_moment(timestamp):
        raise Invalid("payload.optional.timestamp", timestamp, "a whole number of seconds")


def _is_moment(value: object) -> bool:
    """Whether a value is a whole number of 64 bits, however it is written."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_MOMENTS <= value < _MOMENTS and value == int(value)
