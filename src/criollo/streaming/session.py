"""What a transport offers for a session, and how a session ends.

    SPDY or WebSocket ──collect──▶ Offered ──▶ process.py   runs the exec or attach, then `finish`
                      ──forwards─▶ Pair    ──▶ forward.py   dials, copies both ways

A status travels on the client's error stream. Since version 4 of the protocol it is JSON with the exit code (metav1.Status
of Kubernetes), before that only the text of a failure.
"""

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

import msgspec

from criollo.aio.streams import Reader, Streams, Writer

VERSIONS: Final = {
    "channel.k8s.io": 1,
    "v2.channel.k8s.io": 2,
    "v3.channel.k8s.io": 3,
    "v4.channel.k8s.io": 4,
    "v5.channel.k8s.io": 5,
}
STREAMS_S: Final = 30.0  # for a client to open the streams that it asked for


class Status(NamedTuple):
    """How a session ended: an exit code, or why there is none."""

    exit_code: int = 0
    failure: str = ""


class Offered(NamedTuple):
    """The streams of an exec or attach. `finish` sends the status and closes every stream; it does not end the connection."""

    streams: Streams
    finish: Callable[[Status], Awaitable[None]]


class Duplex(Reader, Writer, Protocol):
    """Both directions of one forwarded connection; `close` ends ours, the other goes on."""

    async def reset(self) -> None:
        """Give up both directions at once."""
        ...


class Pair(NamedTuple):
    """A forwarded connection that a client asks for."""

    port: int
    data: Duplex
    error: Writer


def encode(status: Status, version: int) -> bytes:
    """What the error stream says, by version of the protocol; empty: nothing."""
    if version >= 4:
        return msgspec.json.encode(_document(status))
    return _text(status).encode()


def _text(status: Status) -> str:
    if status.failure:
        return status.failure
    return f"command terminated with non-zero exit code: {status.exit_code}" if status.exit_code else ""


def _document(status: Status) -> dict[str, object]:
    """Source: metav1.Status of k8s.io/apimachinery; reasons of k8s.io/cri-streaming, pkg/streaming/remotecommand."""
    if status.failure:
        message = f"Internal error occurred: {status.failure}"
        return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
    if status.exit_code:
        causes = [{"reason": "ExitCode", "message": str(status.exit_code)}]
        return {
            "metadata": {},
            "status": "Failure",
            "message": _text(status),
            "reason": "NonZeroExitCode",
            "details": {"causes": causes},
        }
    return {"metadata": {}, "status": "Success"}
