import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from criollo.aio.http_server import HttpServer, Reply, Request
from criollo.aio.together import first
from criollo.daemon.front_door import FrontDoor
from criollo.errors import CriolloError, HostFailed, Invalid, Unavailable
from criollo.kpod import http


def talk(path: Path, client: Callable[[], Any]) -> Any:
    """Run a client against a server with one route that gives the query back, and one that fails."""

    async def echo(request: Request) -> Reply:
        return Reply(body=repr(sorted(request.query.items())).encode())

    async def fail(request: Request) -> Reply:
        raise Invalid("image", "x\x1b", "better")

    result: list[Any] = []

    async def ask() -> None:
        result.append(await client())

    async def main() -> None:
        server = HttpServer({("POST", "/echo"): echo, ("GET", "/fail"): fail})
        door = FrontDoor(path, grpc=server.serve, http=server.serve)
        door.open()
        await first(ask(), door.run())

    asyncio.run(main())
    return result[0]


def test_queries_travel_whole(tmp_path: Path) -> None:
    query = [("image", "a b&c"), ("image", "ü"), ("path", "/x?y#z")]
    body = talk(tmp_path / "s", lambda: http.post(tmp_path / "s", "/echo", query))
    assert body == repr([("image", ["a b&c", "ü"]), ("path", ["/x?y#z"])]).encode()


def test_a_refusal_is_an_error_in_the_servers_words(tmp_path: Path) -> None:
    with pytest.raises(CriolloError, match=r"image: got 'x\\x1b', expected better"):
        talk(tmp_path / "s", lambda: http.get(tmp_path / "s", "/fail"))
    with pytest.raises(CriolloError, match="nothing at /none"):
        talk(tmp_path / "s", lambda: http.get(tmp_path / "s", "/none"))


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="cannot connect to"):
        asyncio.run(http.get(tmp_path / "none", "/x"))


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", b"220 smtp\r\n\r\n"])
def test_an_answer_that_is_none_is_told(tmp_path: Path, answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

    async def main() -> None:
        async with await asyncio.start_unix_server(reply, tmp_path / "s"):
            await http.get(tmp_path / "s", "/x")

    with pytest.raises(Unavailable):
        asyncio.run(main())


def lines_of(path: Path, raw: bytes) -> list[bytes]:
    """The lines that a client gets of this answer, as it lies on the wire."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = 7 if len(raw) < 1000 else 1 << 16
        with contextlib.closing(writer):  # also when the client has left, and the loop ends, amid a long answer
            await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(raw), step):
                writer.write(raw[at : at + step])
                await writer.drain()

    async def main() -> list[bytes]:
        server = await asyncio.start_unix_server(reply, path)
        async with server:
            return [line async for line in http.lines(path, "GET", "/x")]

    return asyncio.run(main())


def test_lines_come_one_by_one_whatever_the_pieces(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"on", b"e\ntwo\n", b"last"))
    assert lines_of(tmp_path / "s", head + body + b"0\r\n\r\n") == [b"one", b"two", b"last"]


def test_lines_of_a_refusal_are_its_words(tmp_path: Path) -> None:
    head = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n"
    with pytest.raises(CriolloError, match=r"^no\\nsuch$"):
        lines_of(tmp_path / "s", head + b"no\nsuch\n\n")


def test_a_line_without_end_and_an_answer_that_breaks_off_are_told(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n"
    with pytest.raises(Unavailable, match="a line of the answer is over"):
        lines_of(tmp_path / "s", head + b"x" * (1 << 21))
    with pytest.raises(Unavailable, match="is the daemon running"):
        lines_of(tmp_path / "t", head + b"x\n")
