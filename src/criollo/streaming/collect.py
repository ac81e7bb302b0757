"""What the streams of a SPDY connection are for: by their headers, as Kubernetes' clients set them.

    exec, attach     streamType: error | stdin | stdout | stderr | resize
    port-forward     streamType: error | data, port: 80, requestID: 7       two streams make one forwarded connection

Each stream is replied to at once: client-go opens the next one only after that. What does not fit is refused, the rest goes on.
Source: k8s.io/cri-streaming, pkg/streaming/remotecommand (httpstream.go) and pkg/streaming/portforward (httpstream.go).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from criollo.aio.streams import Size, Streams
from criollo.errors import TimedOut, Unavailable
from criollo.model.session import AttachSession, ExecSession
from criollo.streaming.session import STREAMS_S, Offered, Pair, Status, encode
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream
from criollo.telemetry.log import get_logger
from criollo.wire.sizes import parse_size

log = get_logger(__name__)

_RESIZE_VERSION: Final = 3  # the first that has a stream for sizes
_SIZE_BYTES: Final = 1 << 10
_MAX_PORT: Final = 0xFFFF
_LOOK_AFTER: Final = 64  # streams without their partner, before those that are gone are looked for


async def collect(
    connection: SpdyConnection, session: ExecSession | AttachSession, version: int, *, limit_s: float = STREAMS_S
) -> Offered:
    """The streams that the session's client must open; all others are refused, now and later.

    Raises:
        TimedOut: they were not all opened in time.
        Unavailable: the client left before.
    """
    missing, found = _expected(session, version), dict[str, SpdyStream]()
    try:
        async with asyncio.timeout(limit_s):
            while missing:
                stream = await connection.accept()
                if stream is None:
                    raise Unavailable(f"cannot attach the client's streams: it left without opening {_listed(missing)}")
                kind = stream.headers.get("streamtype", "")
                if kind not in missing:
                    await _refuse(stream, "not one of those that the session has")
                    continue
                missing.discard(kind)
                found[kind] = stream
                await stream.reply()
    except TimeoutError:
        raise TimedOut(
            f"cannot attach the client's streams: {_listed(missing)} not opened within {limit_s:.0f} seconds"
        ) from None
    connection.take_no_more()
    return _offer(found, version)


async def forwards(connection: SpdyConnection, *, limit_s: float = STREAMS_S) -> AsyncIterator[Pair]:
    """The forwarded connections that the client opens, until it opens no more. `data.reset` gives one up."""
    waiting: dict[str, _Half] = {}
    while True:
        oldest = next(iter(waiting.values()), None)
        try:
            async with asyncio.timeout_at(None if oldest is None else oldest.deadline):
                stream = await connection.accept()
        except TimeoutError:
            assert oldest is not None
            del waiting[oldest.request_id]
            await _refuse(oldest.stream, "its partner was not opened in time")
            continue
        if stream is None:
            return
        half = _half(stream, asyncio.get_running_loop().time() + limit_s)
        if half is None:
            await _refuse(stream, "no stream of a port-forward")
        elif (pair := await _pair(waiting, half)) is not None:
            yield pair


class _Half(NamedTuple):
    """One of the two streams of a forwarded connection."""

    kind: str
    port: int
    request_id: str
    stream: SpdyStream
    deadline: float


def _expected(session: ExecSession | AttachSession, version: int) -> set[str]:
    asked = {
        "stdin": session.stdin,
        "stdout": session.stdout,
        "stderr": session.stderr and not session.tty,
        "resize": session.tty and version >= _RESIZE_VERSION,
    }
    return {"error", *(kind for kind, is_asked in asked.items() if is_asked)}


def _listed(kinds: set[str]) -> str:
    return ", ".join(sorted(kinds))


def _offer(found: dict[str, SpdyStream], version: int) -> Offered:
    for kind in ("error", "stdout", "stderr"):
        if kind in found:
            found[kind].drop()
    resize = found.get("resize")
    streams = Streams(
        stdin=found.get("stdin"),
        stdout=found.get("stdout"),
        stderr=found.get("stderr"),
        sizes=None if resize is None else _sizes(resize),
    )

    async def finish(status: Status) -> None:
        for kind, stream in found.items():
            if kind != "error":
                stream.drop()
                await stream.close()
        if text := encode(status, version):
            await found["error"].write(text)
        await found["error"].close()

    return Offered(streams, finish)


async def _sizes(stream: SpdyStream) -> AsyncIterator[Size]:
    """The terminal's sizes; of several that came at once only the last. What is no size is passed over."""
    begun = b""
    try:
        while octets := await stream.read():
            *documents, begun = (begun + octets).split(b"}")  # sizes have no objects inside
            if len(begun) > _SIZE_BYTES:
                break
            for document in reversed(documents):
                try:
                    size = Size(*parse_size(document[-_SIZE_BYTES:] + b"}"))
                except ValueError as error:
                    log.debug("malformed size of a terminal passed over", cause=error)
                else:
                    yield size
                    break
    except ConnectionError:
        pass
    stream.drop()


def _half(stream: SpdyStream, deadline: float) -> _Half | None:
    kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
    if kind not in ("data", "error") or not (
        port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= _MAX_PORT
    ):
        return None
    # Clients before Kubernetes 1.2 gave no id, and opened the data stream right after the error stream.
    old_id = f"#{stream.stream_id - 2 * (kind == 'data')}"
    return _Half(kind, int(port), stream.headers.get("requestid") or old_id, stream, deadline)


async def _pair(waiting: dict[str, _Half], half: _Half) -> Pair | None:
    """Find the partner of a stream that has arrived, or keep it until that comes."""
    other = waiting.get(half.request_id)
    if other is None or other.stream.is_lost:
        waiting.pop(half.request_id, None)
        if len(waiting) >= _LOOK_AFTER:
            for gone in [request_id for request_id, one in waiting.items() if one.stream.is_lost]:
                del waiting[gone]
        waiting[half.request_id] = half
        await half.stream.reply()
        return None
    if other.kind == half.kind:
        await _refuse(half.stream, "its request has such a stream already")
        return None
    del waiting[half.request_id]
    if other.port != half.port:
        await _refuse(half.stream, "its request is for another port")
        await _refuse(other.stream, "its request is for another port")
        return None
    await half.stream.reply()
    data, error = (half, other) if half.kind == "data" else (other, half)
    error.stream.drop()
    return Pair(half.port, data.stream, error.stream)


async def _refuse(stream: SpdyStream, cause: str) -> None:
    log.debug("SPDY stream refused", headers=stream.headers, cause=cause)
    await stream.refuse()
