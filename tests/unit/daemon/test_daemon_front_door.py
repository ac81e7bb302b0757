"""One socket, two protocols, and everything that is neither."""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.waiting import Lingering

from criollo.aio.http_server import HttpServer, Reply, Request
from criollo.cri.client import connect
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Server
from criollo.daemon.front_door import PREFACE, DoorLimits, FrontDoor, Speaks, recognise
from criollo.errors import Invalid, WrongState


async def _version(request: Any) -> pb.VersionResponse:
    return pb.VersionResponse(version="0.1.0")


async def _info(request: Request) -> Reply:
    return Reply(body=b"{}", content_type="application/json")


def _door(path: Path, limits: DoorLimits | None = None) -> FrontDoor:
    grpc = Server({"runtime.v1.RuntimeService": {"Version": _version}})
    return FrontDoor(path, grpc=grpc.serve, http=HttpServer({("GET", "/info"): _info}).serve, limits=limits)


def through(door: FrontDoor, use: Callable[[Path], Awaitable[Any]]) -> Any:
    """Open the door, run `use`, close the door."""

    async def main() -> Any:
        door.open()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(door.run())
            try:
                return await use(door.path)
            finally:
                running.cancel()
                door.stop_accepting()

    return asyncio.run(main())


async def _say(path: Path, *chunks: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def test_grpc_and_http_share_the_socket(tmp_path: Path) -> None:
    async def use(path: Path) -> tuple[str, bytes]:
        async with connect(path) as client:
            reply = await client.runtime("Version", pb.VersionRequest())
        return reply.version, await _say(path, b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")

    version, answer = through(_door(tmp_path / "s"), use)
    assert version == "0.1.0"
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"{}")


def test_first_bytes_may_come_one_by_one(tmp_path: Path) -> None:
    request = b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    chunks = [request[at : at + 1] for at in range(len(request))]
    assert through(_door(tmp_path / "s"), lambda path: _say(path, *chunks)).endswith(b"{}")


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x01\x02\x00\x01", b"get / HTTP/1.1\r\n\r\n", b"PRI * HTTP/3.0\r\n\r\n", b"\0", b"A" * 64]
)
def test_neither_protocol_is_closed_without_a_word(tmp_path: Path, first: bytes) -> None:
    assert through(_door(tmp_path / "s"), lambda path: _say(path, first)) == b""


@pytest.mark.parametrize("first", [b"", b"P", PREFACE[:-1]])
def test_saying_nothing_in_time_closes(tmp_path: Path, first: bytes) -> None:
    assert through(_door(tmp_path / "s", DoorLimits(first_bytes_s=0.1)), lambda path: _say(path, first)) == b""


def test_connections_beyond_the_limit_are_closed(tmp_path: Path) -> None:
    async def use(path: Path) -> bytes:
        _, first = await asyncio.open_unix_connection(str(path))
        try:
            return await _say(path, b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        finally:
            first.close()

    assert through(_door(tmp_path / "s", DoorLimits(connections=1)), use) == b""


def test_connections_are_counted_down_when_they_end(tmp_path: Path) -> None:
    door = _door(tmp_path / "s", DoorLimits(connections=1))

    async def use(path: Path) -> int:
        for _ in range(5):
            assert await _say(path, b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while door.open_connections:
                await asyncio.sleep(0)
        return door.open_connections

    assert through(door, use) == 0


def test_socket_has_its_mode_and_a_closed_parent(tmp_path: Path) -> None:
    async def use(path: Path) -> tuple[int, int]:
        return stat.S_IMODE(os.stat(path).st_mode), stat.S_IMODE(os.stat(path.parent).st_mode)

    assert through(_door(tmp_path / "run" / "s"), use) == (0o660, 0o700)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "s"))
    dead.close()
    assert through(_door(tmp_path / "s"), lambda path: _say(path, b"GET /info HTTP/1.0\r\n\r\n"))


def test_live_socket_of_another_daemon_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        with pytest.raises(WrongState, match="another daemon"):
            _door(tmp_path / "s").open()
    assert (tmp_path / "s").exists()


def test_file_that_is_no_socket_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(Invalid, match="move the file away"):
        _door(tmp_path / "s").open()
    assert (tmp_path / "s").read_text() == "precious"


def test_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="bytes"):
        _door(tmp_path / ("x" * 120)).open()


def test_name_goes_with_the_door_unless_another_took_it(tmp_path: Path) -> None:
    async def nothing(path: Path) -> None:
        return None

    through(_door(tmp_path / "s"), nothing)
    assert not (tmp_path / "s").exists()
    door = _door(tmp_path / "s")
    door.open()
    (tmp_path / "s").unlink()
    (tmp_path / "s").write_text("of another")
    door.stop_accepting()
    assert (tmp_path / "s").read_text() == "of another"


def test_stopping_lets_open_connections_end_on_their_own(tmp_path: Path) -> None:
    async def main() -> str:
        door = _door(tmp_path / "s")
        door.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(door.run())
            async with connect(door.path) as client:
                await client.runtime("Version", pb.VersionRequest())
                door.stop_accepting()
                reply = await client.runtime("Version", pb.VersionRequest())
        return str(reply.version)

    assert asyncio.run(main()) == "0.1.0"


def test_who_comes_while_it_ends_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        troubles: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, trouble: troubles.append(trouble))
        slow = Lingering()
        door = FrontDoor(tmp_path / "s", grpc=slow.serve, http=slow.serve)
        door.open()
        running = loop.create_task(door.run())
        with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
            early.connect(str(door.path))
            early.sendall(b"GET / HTTP/1.1")
            await slow.begun.wait()
            late.connect(str(door.path))
            late.setblocking(False)
            running.cancel()
            async with asyncio.timeout(60):
                with contextlib.suppress(ConnectionResetError):
                    assert await loop.sock_recv(late, 1) == b""
            assert not door.path.exists()
            slow.may_end.set()
            await asyncio.wait([running])
        assert (troubles, door.open_connections) == ([], 0)

    asyncio.run(main())


def test_who_was_taken_in_the_moment_it_ends_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    door = _door(tmp_path / "s")
    admit = door.admit

    async def main() -> None:
        door.open()
        running = asyncio.get_running_loop().create_task(door.run())

        def ends(greeting: Any) -> bool:
            running.cancel()
            return admit(greeting)

        monkeypatch.setattr(door, "admit", ends)
        assert await _say(door.path) == b""
        await asyncio.wait([running])

    asyncio.run(main())
    assert door.open_connections == 0


def test_failing_protocol_does_not_close_the_door(tmp_path: Path) -> None:
    async def broken(transport: asyncio.Transport, first: bytes) -> None:
        raise ZeroDivisionError

    door = FrontDoor(tmp_path / "s", grpc=broken, http=HttpServer({("GET", "/info"): _info}).serve)

    async def use(path: Path) -> bytes:
        assert await _say(path, PREFACE) == b""
        return await _say(path, b"GET /info HTTP/1.0\r\n\r\n")

    assert through(door, use).endswith(b"{}")


@given(st.binary(max_size=60))
def test_decision_never_changes_with_more_bytes(data: bytes) -> None:
    decisions = [recognise(data[:size]) for size in range(len(data) + 1)]
    settled = [decision for decision in decisions if decision is not Speaks.UNCLEAR]
    assert len(set(settled)) <= 1
    assert Speaks.UNCLEAR not in decisions[len(decisions) - len(settled) :]


def test_refused_connections_are_told_once_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def use(path: Path) -> None:
        _, first = await asyncio.open_unix_connection(str(path))
        try:
            for _ in range(5):
                await _say(path, b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        finally:
            first.close()

    through(_door(tmp_path / "s", DoorLimits(connections=1)), use)
    assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["connection refused: too many are open"]
