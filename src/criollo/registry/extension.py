"""Simple signatures that a registry keeps itself, by the extension that some have (OpenShift's): it announces them.

    GET /v2/                                          X-Registry-Supports-Signatures: 1
    GET /extensions/v2/<repository>/signatures/<digest>
        {"signatures": [{"schemaVersion": 2, "name": "…", "type": "atomic", "content": "<base64>"}]}

Source: containers/image, docs/signature-protocols.md, section "OpenShift Docker registry API extension".
"""

import base64
import binascii
from typing import Final

import msgspec

from criollo.errors import Forbidden, Invalid, NotFound, Unauthenticated, Unavailable
from criollo.oci import document
from criollo.oci.digest import Digest
from criollo.oci.reference import Reference
from criollo.oci.signature import MAX_BYTES
from criollo.registry.client import Registry, Shown, question_for
from criollo.registry.endpoints import Endpoint
from criollo.registry.exchange import Exchange
from criollo.registry.lookaside import LIMITS, MAX_SIGNATURES, MAX_TOTAL_BYTES
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

HEADER: Final = "X-Registry-Supports-Signatures"
_MAX_LIST_BYTES: Final = 2 * MAX_TOTAL_BYTES
_MAX_PING_BYTES: Final = 64 << 10
_VERSION: Final = 2
_TYPE: Final = "atomic"


class _Listed(msgspec.Struct, frozen=True):
    version: int = msgspec.field(default=0, name="schemaVersion")
    type: str = ""
    content: str = ""


async def fetch(
    registry: Registry, ref: Reference, digest: Digest, shown: Shown = None, *, source: str = ""
) -> list[bytes] | None:
    """The simple signatures of a manifest; None where its registry does not announce that it keeps any.

    `source` names the endpoint that served the manifest; without one, the registry of `ref` is asked.

    Raises:
        Invalid: there are too many or too long ones, or they are no list of signatures.
        Unavailable, Forbidden, Unauthenticated: the registry announces them and does not give them.
    """

    def talk(exchange: Exchange, endpoint: Endpoint) -> list[bytes] | None:
        try:
            ping = exchange.ask(question_for(ref, endpoint, shown, path="", place=f"{endpoint.base}/"))
        except (Forbidden, NotFound, Unauthenticated, Unavailable) as error:
            log.info("a registry does not say whether it keeps signatures", endpoint=endpoint, error=error)
            return None
        announced = ping.headers.get(HEADER, "").strip() == "1"
        exchange.read(ping, _MAX_PING_BYTES, what="answer", host=endpoint.api_host)
        if not announced:
            return None
        path = f"signatures/{digest}"
        place = f"/extensions/v2/{endpoint.repository}/{path}"
        answer = exchange.ask(question_for(ref, endpoint, shown, path=path, place=place))
        raw = exchange.read(answer, _MAX_LIST_BYTES, what="list of signatures", host=endpoint.api_host)
        return parse(raw, what=f"signatures of {endpoint.name}@{digest}")

    return await registry.converse(ref, talk, source=source)


def parse(raw: bytes, *, what: str) -> list[bytes]:
    """The simple signatures of a list; those of other kinds are left out.

    Raises:
        Invalid: it is malformed, or has too many or too long ones.
    """
    table = document.parse_object(raw, what=what, limit_bytes=_MAX_LIST_BYTES)
    listed = document.convert(table.get("signatures") or [], list[_Listed], what=what)
    found = [each.content for each in listed if each.version == _VERSION and each.type == _TYPE]
    if len(found) > MAX_SIGNATURES:
        raise Invalid(what, f"{len(found)} signatures", LIMITS)
    try:
        blobs = [base64.b64decode(content, validate=True) for content in found]
    except (binascii.Error, ValueError):
        raise Invalid(what, "other text", "base64") from None
    if sum(map(len, blobs)) > MAX_TOTAL_BYTES or any(len(blob) > MAX_BYTES for blob in blobs):
        raise Invalid(what, "too long ones", LIMITS)
    return blobs
