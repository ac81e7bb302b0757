"""The client's side of an exec or attach: streams on a SPDY connection over the daemon's socket, and how it ended.

    async with opened(socket, path, Wanted(...)) as remote:
        code = await run(remote, Ours(...))

Protocol v4.channel.k8s.io: a stream per direction, the end of standard input is the end of its stream, sizes of a terminal
are JSON, the outcome is a metav1.Status on the error stream. Source: Kubernetes, remotecommand; CRI v1, Exec and Attach.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.aio.streams import Reader, Size, Writer, copy
from criollo.aio.together import first, together
from criollo.errors import CriolloError, Unavailable, printable
from criollo.kpod.detach import Watcher
from criollo.kpod.upgrade import UpgradeWish, upgrade
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream

PROTOCOL: Final = "v4.channel.k8s.io"
SPDY: Final = "SPDY/3.1"
_STATUS_BYTES: Final = 1 << 20


class Wanted(NamedTuple):
    """The streams of a session."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Remote(NamedTuple):
    """The open streams."""

    connection: SpdyConnection
    error: SpdyStream
    stdin: SpdyStream | None
    stdout: SpdyStream | None
    stderr: SpdyStream | None
    resize: SpdyStream | None


class Ours(NamedTuple):
    """The ends here; `keys` let go of the session."""

    stdin: Reader | None
    stdout: Writer
    stderr: Writer
    sizes: AsyncIterator[Size] | None = None
    keys: bytes = b""


class Detached(Exception):
    """The person has let go of the session."""


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    status: str = ""
    message: str = ""
    reason: str = ""
    details: _Details | None = None


@contextlib.asynccontextmanager
async def connected(socket: Path, path: str, protocol: str) -> AsyncIterator[SpdyConnection]:
    """A SPDY connection at a path of the daemon's socket, closed with the block."""
    wish = UpgradeWish("POST", path, SPDY, (("x-stream-protocol-version", protocol),))
    upgraded = await upgrade(socket, wish)
    connection = SpdyConnection(is_client=True)
    try:
        connection.start(upgraded.transport, upgraded.first)
        yield connection
    finally:
        connection.abort()


@contextlib.asynccontextmanager
async def opened(socket: Path, path: str, wanted: Wanted) -> AsyncIterator[Remote]:
    """The streams of a session that the daemon has given a path for; closed with the block.

    Raises:
        CriolloError: the daemon refuses.
        Unavailable: the connection ended.
    """
    async with connected(socket, path, PROTOCOL) as connection:

        async def stream(kind: str, *, is_wanted: bool = True) -> SpdyStream | None:
            return await connection.open({"streamtype": kind}) if is_wanted else None

        try:
            error = await stream("error")
            assert error is not None
            remote = Remote(
                connection,
                error,
                await stream("stdin", is_wanted=wanted.stdin),
                await stream("stdout", is_wanted=wanted.stdout),
                await stream("stderr", is_wanted=wanted.stderr and not wanted.tty),
                await stream("resize", is_wanted=wanted.tty),
            )
        except ConnectionError as failure:
            raise Unavailable(f"cannot open a session: {failure}; try again") from failure
        yield remote


async def run(remote: Remote, ours: Ours) -> int:
    """Pass everything on until the session has ended; the exit code of an exec, 0 for an attach.

    Raises:
        Detached: the keys were typed.
        CriolloError: the daemon says what went wrong.
        Unavailable: the connection ended before the outcome.
        BrokenPipeError: nobody reads our output any more.
    """
    outcome: list[int] = []

    async def until_end() -> None:
        _, _, said = await together(
            [_pour(remote.stdout, ours.stdout), _pour(remote.stderr, ours.stderr), _read_all(remote.error)]
        )
        outcome.append(_exit_code(said))

    await first(until_end(), _feed(remote, ours), _tell_sizes(remote.resize, ours.sizes))
    if not outcome:
        raise Detached
    return outcome[0]


async def _pour(source: SpdyStream | None, sink: Writer) -> bytes:
    if source is not None:
        while data := await _next(source):
            await sink.write(data)
    return b""


async def _read_all(source: SpdyStream) -> bytes:
    found = bytearray()
    while data := await _next(source):
        found += data[: _STATUS_BYTES - len(found)]
    return bytes(found)


async def _next(source: SpdyStream) -> bytes:
    try:
        return await source.read()
    except ConnectionError as error:
        raise Unavailable(f"the session was cut: {error}") from error


async def _feed(remote: Remote, ours: Ours) -> None:
    """Send what is typed; returns only when the keys were."""
    if remote.stdin is not None and ours.stdin is not None:
        watcher = Watcher(ours.keys)
        with contextlib.suppress(ConnectionError):  # nobody reads it over there: the outcome says the rest
            if not ours.keys:
                await copy(ours.stdin, remote.stdin)
            while ours.keys and (typed := await ours.stdin.read()):
                await remote.stdin.write(watcher.feed(typed))
                if watcher.has_found:
                    return
            await remote.stdin.write(watcher.rest())
            await remote.stdin.close()
    await asyncio.Event().wait()


async def _tell_sizes(stream: SpdyStream | None, sizes: AsyncIterator[Size] | None) -> None:
    if stream is not None and sizes is not None:
        with contextlib.suppress(ConnectionError):
            async for size in sizes:
                await stream.write(msgspec.json.encode({"Width": size.columns, "Height": size.rows}))
    await asyncio.Event().wait()


def _exit_code(said: bytes) -> int:
    """What the error stream says; nothing is success."""
    if not said:
        return 0
    try:
        status = msgspec.json.decode(said, type=_Status)
    except msgspec.DecodeError:
        raise CriolloError(printable(said.decode("utf-8", "replace"))) from None
    if status.status == "Success":
        return 0
    for cause in status.details.causes if status.details is not None else ():
        if cause.reason == "ExitCode" and cause.message.isdecimal() and len(cause.message) < 4:
            return int(cause.message)
    text = status.message.removeprefix("Internal error occurred: ")
    raise CriolloError(printable(text) or "the session failed, and the daemon does not say why")
