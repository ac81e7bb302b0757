"""The streaming port: what it listens on, what clients are told, and that no connection outlives it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.waiting import Lingering
from test_streaming_tls import certificate

from criollo.aio.http_server import HttpServer, Reply, Request, text
from criollo.errors import HostFailed
from criollo.streaming.listener import Listener, reachable
from criollo.streaming.tls import Certificates


async def _hello(request: Request) -> Reply:
    return text(200, "hello")


@contextlib.asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[Listener]:
    """A listener that answers HTTP, until the end of the block."""
    http = HttpServer({("GET", "/"): _hello})
    options = {"address": "127.0.0.1", "port": 0, "serve": http.serve, **options}
    listener = Listener(options.pop("address"), options.pop("port"), **options)
    listener.open()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(listener.run())
        try:
            yield listener
        finally:
            running.cancel()
            listener.stop_accepting()


async def get(listener: Listener, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await asyncio.open_connection(host, listener.port, ssl=context)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    return answer


def test_connection_is_served_and_closed() -> None:
    async def main() -> None:
        async with listening() as listener:
            assert (await get(listener)).endswith(b"hello\n")
            assert listener.base_url == f"http://127.0.0.1:{listener.port}"
            assert f"localhost:{listener.port}" in listener.hosts

    asyncio.run(main())


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::"])
def test_all_addresses_have_one_port_and_a_url_that_can_be_used(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(address=address) as listener:
            assert (await get(listener)).endswith(b"hello\n")
            assert listener.base_url.split("//")[1].rpartition(":")[0] not in ("0.0.0.0", "[::]", "")

    asyncio.run(main())
    assert "beyond loopback without TLS" in caplog.text


def test_loopback_of_ipv6_is_written_in_brackets(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(address="::1") as listener:
            assert listener.base_url == f"http://[::1]:{listener.port}"
            assert (await get(listener, host="::1")).endswith(b"hello\n")

    asyncio.run(main())
    assert not caplog.text


def test_tls_is_spoken_where_there_is_a_certificate(tmp_path: Path) -> None:
    files = certificate(tmp_path)
    certificates = Certificates(files)
    certificates.load()

    async def main() -> None:
        async with listening(certificates=certificates) as listener:
            assert listener.base_url.startswith("https://")
            assert (await get(listener, context=ssl.create_default_context(cafile=files.cert))).endswith(b"hello\n")
            assert await get(listener) == b""  # plain HTTP gets no answer, and harms nobody
            assert (await get(listener, context=ssl.create_default_context(cafile=files.cert))).endswith(b"hello\n")

    asyncio.run(main())


def test_small_writes_do_not_wait_for_the_peer_to_acknowledge() -> None:
    delays = []

    async def serve(transport: asyncio.Transport, first: bytes) -> None:
        delays.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    async def main() -> None:
        async with listening(serve=serve) as listener:
            with contextlib.suppress(ConnectionError):
                await get(listener)

    asyncio.run(main())
    assert delays == [1]


def test_too_many_connections_are_refused() -> None:
    async def main() -> None:
        async with listening(limit=1) as listener:
            _, held = await asyncio.open_connection("127.0.0.1", listener.port)
            async with asyncio.timeout(60):
                while not listener.open_connections:
                    await asyncio.sleep(0)
            with contextlib.suppress(ConnectionError):
                assert await get(listener) == b""
            held.close()

    asyncio.run(main())


def test_who_was_taken_in_the_moment_it_ends_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener("127.0.0.1", 0, serve=HttpServer({}).serve)
    admit = listener.admit

    async def main() -> None:
        listener.open()
        running = asyncio.get_running_loop().create_task(listener.run())

        def ends(arrival: Any) -> bool:
            running.cancel()
            return admit(arrival)

        monkeypatch.setattr(listener, "admit", ends)
        with contextlib.suppress(ConnectionError):
            assert await get(listener) == b""
        await asyncio.wait([running])

    asyncio.run(main())
    assert listener.open_connections == 0


def test_end_of_the_listener_leaves_no_descriptor() -> None:
    async def main() -> None:
        async with listening() as listener:
            open_ones = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(5)]
        for reader, writer in open_ones:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())
    before = leaks.descriptors()
    asyncio.run(main())
    assert leaks.new_descriptors(before) == []


def test_who_comes_while_it_ends_is_refused() -> None:
    async def main() -> None:
        troubles: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, trouble: troubles.append(trouble))
        slow = Lingering()
        listener = Listener("127.0.0.1", 0, serve=slow.serve)
        listener.open()
        running = asyncio.get_running_loop().create_task(listener.run())
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await slow.begun.wait()
        port = listener.port
        late = socket.create_connection(("127.0.0.1", port))  # accepted only after the end has begun
        running.cancel()
        with contextlib.closing(late):
            late.setblocking(False)
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(late, 1) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        slow.may_end.set()
        await asyncio.wait([running])
        assert await reader.read() == b""
        writer.close()
        assert (troubles, listener.open_connections) == ([], 0)

    asyncio.run(main())


def test_server_that_fails_closes_its_connection_only() -> None:
    async def serve(transport: asyncio.Transport, first: bytes) -> None:
        raise ValueError("a bug")

    async def main() -> None:
        async with listening(serve=serve) as listener:
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.close()
            async with asyncio.timeout(60):
                while listener.open_connections:
                    await asyncio.sleep(0)

    asyncio.run(main())


def test_taken_port_is_an_error_of_ours() -> None:
    async def main() -> None:
        async with listening() as listener:
            other = Listener("127.0.0.1", listener.port, serve=HttpServer({}).serve)
            with pytest.raises(HostFailed, match="set another stream_address or stream_port"):
                other.open()
            other.stop_accepting()

    asyncio.run(main())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7"])
def test_an_address_is_told_as_it_is(address: str) -> None:
    assert reachable(address) == address


def test_refused_connections_are_told_once_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with listening(limit=0) as listener:
            for _ in range(3):
                with contextlib.suppress(ConnectionError):
                    assert await get(listener) == b""

    asyncio.run(main())
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["connection refused: too many are open"]
