"""Our errors as gRPC status codes and back; the only place that knows the codes.

kubelet recognises a few failures by the first word of the text, and only when the code is UNKNOWN, because it strips
that code and no other from what a pull returns. `_KUBELET_WORDS` holds those words (k8s.io/cri-api, pkg/errors).
"""

import secrets
from enum import IntEnum
from typing import Final

from criollo.errors import (
    CriolloError,
    Damaged,
    Denied,
    Exhausted,
    Exists,
    Forbidden,
    HostFailed,
    Invalid,
    NotFound,
    TimedOut,
    ToolFailed,
    Unauthenticated,
    Unavailable,
    Unsupported,
    VolumeFailed,
    WrongState,
)


class Code(IntEnum):
    """gRPC status codes. Source: grpc/doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


CODES: Final[dict[type[CriolloError], Code]] = {
    Invalid: Code.INVALID_ARGUMENT,
    NotFound: Code.NOT_FOUND,
    Exists: Code.ALREADY_EXISTS,
    WrongState: Code.FAILED_PRECONDITION,
    Forbidden: Code.PERMISSION_DENIED,
    Denied: Code.PERMISSION_DENIED,
    Unauthenticated: Code.UNAUTHENTICATED,
    Exhausted: Code.RESOURCE_EXHAUSTED,
    Unavailable: Code.UNAVAILABLE,
    TimedOut: Code.DEADLINE_EXCEEDED,
    Damaged: Code.DATA_LOSS,
    Unsupported: Code.UNIMPLEMENTED,
    ToolFailed: Code.UNKNOWN,
    HostFailed: Code.UNKNOWN,
    VolumeFailed: Code.UNKNOWN,
}

_KUBELET_WORDS: Final[dict[tuple[str, type[CriolloError]], str]] = {
    ("PullImage", Unavailable): "RegistryUnavailable",
    ("PullImage", Denied): "SignatureValidationFailed",
    ("CreateContainer", VolumeFailed): "ImageVolumeMountFailed",
}

_CLASSES: Final[dict[int, type[CriolloError]]] = {
    **{code: kind for kind, code in CODES.items() if code is not Code.UNKNOWN},
    Code.CANCELLED: TimedOut,
}

TEXT_LIMIT = 2000  # characters; a header of 8 KiB is what gRPC clients take without further settings


class Refused(Exception):
    """How a call ends when it does not end well: a status code and a text for a person."""

    def __init__(self, code: Code, text: str) -> None:
        self.code = code
        self.text = text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 2] + " …"
        super().__init__(f"{code.name}: {self.text}")


def refusal(error: CriolloError, method: str) -> Refused:
    """The status for an error of ours that ended a call of `method` (its bare name)."""
    code = next(code for kind in type(error).__mro__ if (code := _code(kind)) is not None)
    for (where, kind), word in _KUBELET_WORDS.items():
        if where == method and isinstance(error, kind):
            return Refused(Code.UNKNOWN, f"{word}: {error}")
    return Refused(code, str(error))


def bug() -> Refused:
    """The status for an error that is none of ours; its id stands in our log beside the traceback."""
    number = secrets.token_hex(4)
    return Refused(Code.INTERNAL, f"criollo has a bug: error {number}; its log has the details under this number")


def error_of(code: int, text: str) -> CriolloError:
    """The error of ours for a status that a server answered: what `refusal` was given, as far as it can be known."""
    for (_, kind), word in _KUBELET_WORDS.items():
        if code == Code.UNKNOWN and text.startswith(f"{word}: "):
            return _plain(kind, text.removeprefix(f"{word}: "))
    return _plain(_CLASSES.get(code, CriolloError), text)


def _code(kind: type) -> Code | None:
    return Code.UNKNOWN if kind is CriolloError else CODES.get(kind)


def _plain(kind: type[CriolloError], text: str) -> CriolloError:
    """An error of this class with this text: the parts its own constructor wants did not travel."""
    error = kind.__new__(kind)
    Exception.__init__(error, text)
    return error
