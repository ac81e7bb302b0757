"""The client's side of a session against ours of the server, over a socket pair."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from criollo.aio.streams import Size
from criollo.aio.together import together
from criollo.errors import CriolloError, Unavailable
from criollo.kpod.remote import Detached, Ours, Remote, run
from criollo.streaming.session import Status, encode
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream

Server = Callable[[dict[str, SpdyStream], SpdyConnection], Awaitable[None]]


class Typed:
    """A reader of what a person types; then it waits, or ends."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.pieces, self.ends = list(pieces), ends

    async def read(self) -> bytes:
        if not self.pieces and not self.ends:
            await asyncio.Event().wait()
        return self.pieces.pop(0) if self.pieces else b""


class Shown:
    def __init__(self) -> None:
        self.content = b""

    async def write(self, data: bytes) -> None:
        self.content += data

    async def close(self) -> None: ...


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[SpdyConnection, SpdyConnection]]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    client, server = SpdyConnection(is_client=True), SpdyConnection()
    await loop.create_unix_connection(lambda: client, sock=ours)
    await loop.create_unix_connection(lambda: server, sock=theirs)
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()


def hold(
    serve: Server, stdin: Typed, *, keys: bytes = b"", sizes: AsyncIterator[Size] | None = None
) -> tuple[int, bytes, bytes]:
    """A session with all streams: the exit code, and what was written to both outputs."""
    out, err = Shown(), Shown()

    async def main() -> int:
        async with pair() as (client, server):
            kinds = ("error", "stdin", "stdout", "stderr", "resize")

            async def accept() -> dict[str, SpdyStream]:
                found = {}
                for _ in kinds:
                    stream = await server.accept()
                    assert stream is not None
                    await stream.reply()
                    found[stream.headers["streamtype"]] = stream
                return found

            async def open_all() -> list[SpdyStream]:
                return [await client.open({"streamtype": kind}) for kind in kinds]

            async def theirs() -> None:
                await serve(await accept(), server)

            async def mine() -> int:
                return await run(Remote(client, *await open_all()), Ours(stdin, out, err, sizes, keys))

            async with asyncio.timeout(60):
                code, _ = await together([mine(), theirs()])
            assert isinstance(code, int)
            return code

    return asyncio.run(main()), out.content, err.content


async def finish(streams: dict[str, SpdyStream], said: bytes) -> None:
    await streams["stdout"].close()
    await streams["stderr"].close()
    await streams["error"].write(said) if said else None
    await streams["error"].close()


def ending(said: bytes) -> Server:
    async def serve(streams: dict[str, SpdyStream], _: SpdyConnection) -> None:
        await finish(streams, said)

    return serve


def test_bytes_go_in_until_their_end_and_come_out_apart() -> None:
    async def serve(streams: dict[str, SpdyStream], _: SpdyConnection) -> None:
        while piece := await streams["stdin"].read():
            await streams["stdout"].write(piece)
            await streams["stderr"].write(piece.upper())
        await finish(streams, encode(Status(exit_code=3), 4))

    assert hold(serve, Typed(b"a" * 100_000, b"b")) == (3, b"a" * 100_000 + b"b", b"A" * 100_000 + b"B")


@pytest.mark.parametrize(("said", "code"), [(encode(Status(), 4), 0), (encode(Status(exit_code=255), 4), 255), (b"", 0)])
def test_the_outcome_is_the_exit_code(said: bytes, code: int) -> None:
    assert hold(ending(said), Typed())[0] == code


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (encode(Status(failure="no\x1b such"), 4), r"^no\\x1b such$"),
        (b"plain words", "^plain words$"),
        (b'{"status":"Failure"}', "does not say why"),
        (b'{"status":"Failure","details":{"causes":[{"reason":"ExitCode","message":"x"}]}}', "does not say why"),
        (b"[]", r"^\[\]$"),
    ],
)
def test_a_failure_is_the_daemons_own_words(said: bytes, text: str) -> None:
    with pytest.raises(CriolloError, match=text):
        hold(ending(said), Typed())


def test_a_connection_that_ends_before_the_outcome_is_cut() -> None:
    async def serve(_: dict[str, SpdyStream], server: SpdyConnection) -> None:
        server.abort()

    with pytest.raises(Unavailable, match="the session was cut"):
        hold(serve, Typed(ends=False))


def test_the_keys_let_go_and_what_was_typed_before_arrives() -> None:
    got = []

    async def serve(streams: dict[str, SpdyStream], _: SpdyConnection) -> None:
        got.append(await streams["stdin"].read())

    with pytest.raises(Detached):
        hold(serve, Typed(b"abc\x10\x11rest", ends=False), keys=b"\x10\x11")
    assert got == [b"abc"]


def test_sizes_are_told() -> None:
    got = []

    async def two() -> AsyncIterator[Size]:
        yield Size(24, 80)

    async def serve(streams: dict[str, SpdyStream], _: SpdyConnection) -> None:
        got.append(await streams["resize"].read())
        await finish(streams, b"")

    hold(serve, Typed(ends=False), sizes=two())
    assert got == [b'{"Width":80,"Height":24}']
