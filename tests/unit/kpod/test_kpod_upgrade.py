import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from criollo.errors import CriolloError, HostFailed, Unavailable
from criollo.kpod.upgrade import Upgraded, UpgradeWish, target, target_of, upgrade

AGREED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\nA: b\r\n\r\n"


@contextlib.asynccontextmanager
async def answering(path: Path, answer: bytes, asked: list[bytes]) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()


def ask(path: Path, answer: bytes, use: Callable[[Upgraded], None] = lambda _: None) -> bytes:
    """What a server was asked that answers so."""
    asked: list[bytes] = []

    async def main() -> None:
        async with answering(path, answer, asked):
            found = await upgrade(path, UpgradeWish("POST", "/exec/t?a=b", "x", (("c", "d"),)))
            use(found)
            found.transport.abort()

    asyncio.run(main())
    return asked[0]


def test_a_connection_changes_its_protocol_and_no_byte_is_lost(tmp_path: Path) -> None:
    found: list[Upgraded] = []
    asked = ask(tmp_path / "s", AGREED + b"first", found.append)
    assert (found[0].headers["a"], found[0].first) == ("b", b"first")
    assert asked.startswith(b"POST /exec/t?a=b HTTP/1.1\r\n")
    assert b"\r\nc: d\r\n" in asked.lower()
    assert b"\r\nupgrade: x\r\n" in asked.lower()


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nno\x1b!", CriolloError, r"no\\x1b!"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", CriolloError, "/exec/t was answered with status 500"),
        (b"", Unavailable, "ended before the answer"),
        (b"HTTP/1.1 101 Sw", Unavailable, "ended before the answer"),
        (b"SSH-2.0-x\r\n\r\n", Unavailable, "no HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno", Unavailable, "is no HTTP|ended before"),
    ],
)
def test_a_refusal_is_an_error_with_the_servers_words(
    tmp_path: Path, answer: bytes, error: type[CriolloError], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(tmp_path / "s", answer)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="cannot connect"):
        asyncio.run(upgrade(tmp_path / "s", UpgradeWish("GET", "/", "x")))


def test_only_the_path_of_a_url_counts() -> None:
    assert target_of("https://10.0.0.1:1234/exec/abc") == "/exec/abc"
    assert target("/files", {"a": "b c&"}) == "/files?a=b+c%26"


@pytest.mark.parametrize("url", ["", "http://x", "http://x/", "exec/abc", "http://[x/exec"])
def test_a_url_without_a_path_is_refused(url: str) -> None:
    with pytest.raises(CriolloError, match="the daemon gave"):
        target_of(url)
