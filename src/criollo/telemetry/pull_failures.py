"""Why a pull failed, as the label `error` of `image_pulls_failure_total` says it.

The registry's own word first, then what happened on the way, then the class of our error. The words are those of the OCI
distribution spec and of CRI-O where they have one: for TLS, a full node and a refusing kernel they have none.

Source: OCI distribution-spec v1.1, section Error Codes; distribution, registry/api/errcode; CRI-O, tutorials/metrics.md.
"""

import re
from collections.abc import Sequence
from typing import Final

UNKNOWN: Final = "UNKNOWN"
_SAID: Final = frozenset(
    {
        *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DENIED", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"),
        *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "MANIFEST_UNVERIFIED", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID"),
        *("TAG_INVALID", "TOOMANYREQUESTS", "UNAUTHORIZED", "UNAVAILABLE", "UNSUPPORTED"),
    }
)
_WORD: Final = re.compile(r": ([A-Z_]{6,24})(?=:|;|$)")  # as `registry.answers.error_text` puts it
_ON_THE_WAY: Final = {  # wherever in the chain of causes, the first of these
    "ConnectionRefusedError": "CONNECTION_REFUSED",
    "NewConnectionError": "UNAVAILABLE",  # for urllib3 a kind of ConnectTimeoutError, and a name without address one of these
    "ConnectTimeoutError": "CONNECTION_TIMEOUT",
    "ReadTimeoutError": "CONNECTION_TIMEOUT",
    "TimeoutError": "CONNECTION_TIMEOUT",
    "TimedOut": "CONNECTION_TIMEOUT",
    "Limited": "TOOMANYREQUESTS",
    "NoTls": "NO_TLS",
    "Exhausted": "EXHAUSTED",
}
_CLASSES: Final = {
    "NotFound": "NOT_FOUND",
    "Unauthenticated": "UNAUTHORIZED",
    "Forbidden": "DENIED",
    "Denied": "DENIED",
    "Unavailable": "UNAVAILABLE",
    "Damaged": "DIGEST_INVALID",
    "Invalid": "MANIFEST_INVALID",
    "Unsupported": "UNSUPPORTED",
    "HostFailed": "HOST_FAILED",
}


def cause_of(kinds: Sequence[str], text: str) -> str:
    """The label for an error of these classes (`telemetry.trail`, `error_kinds`) with this text."""
    said = next((word for word in _WORD.findall(text) if word in _SAID), "")
    if said:
        return str(said)
    for kind, label in _ON_THE_WAY.items():
        if kind in kinds:
            return label
    return next((_CLASSES[kind] for kind in kinds if kind in _CLASSES), UNKNOWN)


def ends_the_search(kinds: Sequence[str]) -> bool:
    """Whether no other meaning of a short name is tried after such an error."""
    return "Exhausted" in kinds or "HostFailed" in kinds
