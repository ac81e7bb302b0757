"""Hostile and broken HTTP/2 peers; another client is served meanwhile."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from cri_parties import RUNTIME, in_thread, listening, version
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import until

from criollo.cri.client import connect, connect_socket
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.server import Limits, Server
from criollo.wire.http2_floods import IDLE_FRAMES, RESETS

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{RUNTIME}/Version"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


class Peer:
    """A client that says what it likes: h2 without its own checks over a blocking socket."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(path))
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.send()

    def send(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def request(self, body: bytes | None, headers: list[tuple[str, str]] = HEADERS, *, end: bool = True) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, headers)
        if body is not None:
            self.h2.send_data(number, body, end_stream=end)
        self.send()
        return number

    def events(self, until_seen: type) -> list[Any]:
        """What the server says until an event of a kind, or until it closes."""
        seen: list[Any] = []
        while not any(isinstance(event, until_seen) for event in seen):
            data = self.sock.recv(65536)
            if not data:
                break
            seen += self.h2.receive_data(data)
        return seen

    def trailers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for event in self.events(h2.events.StreamEnded):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                headers |= {_text(name): _text(value) for name, value in event.headers}
        return headers

    def is_closed_by_peer(self) -> bool:
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def attack(path: Path, act: Callable[[Peer], Any], server: Server | None = None) -> Any:
    """Run `act` against a server, then prove that another client is served; give what `act` gave."""
    server = server or Server({RUNTIME: {"Version": version}})

    def blocking() -> Any:
        peer = Peer(path)
        try:
            return act(peer)
        finally:
            peer.sock.close()

    async def main() -> Any:
        async with listening(server, path), connect(path) as steady:
            result = await in_thread(blocking)
            reply = await steady.runtime("Version", pb.VersionRequest(), timeout_s=60)
            assert reply.version == "0.1.0"
            await until(lambda: server.in_flight_bytes == 0)
            return result

    return asyncio.run(main())


def test_rapid_reset_ends_the_connection(tmp_path: Path) -> None:
    def act(peer: Peer) -> bool:
        try:
            for _ in range(RESETS + 10):
                number = peer.request(b"\0\0\0\0\0", end=False)
                peer.h2.reset_stream(number)
                peer.send()
        except (BrokenPipeError, ConnectionResetError):
            pass
        return peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act)


def test_resets_provoked_from_the_server_count_too(tmp_path: Path) -> None:
    """CVE-2025-8671: frames that make the server reset cost the peer as little as its own resets."""

    def act(peer: Peer) -> bool:
        try:
            for _ in range(RESETS + 10):
                number = peer.request(b"\0\0\0\0\0", end=True)
                peer.sock.sendall(b"\0\0\x04\x08\0" + number.to_bytes(4, "big") + b"\0\0\0\0")  # WINDOW_UPDATE of 0
        except (BrokenPipeError, ConnectionResetError):
            pass
        return peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act)


def test_continuation_flood_ends_the_connection(tmp_path: Path) -> None:
    def act(peer: Peer) -> bool:
        try:
            peer.sock.sendall(b"\0\0\x01\x01\0\0\0\0\x01\x88")  # HEADERS without END_HEADERS
            for _ in range(100_000):
                peer.sock.sendall(b"\0\0\x01\x09\0\0\0\0\x01\x88")
        except (BrokenPipeError, ConnectionResetError):
            pass
        return peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act)


def test_headers_over_the_limit_end_the_connection(tmp_path: Path) -> None:
    def act(peer: Peer) -> bool:
        peer.h2.max_outbound_frame_size = 1 << 14
        peer.request(b"", [*HEADERS, *((f"x-{number}", "y" * 1000) for number in range(70))])
        return peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act)


def _opened(peer: Peer, count: int) -> None:
    """Open streams without a look at the server's limit."""
    for number in range(1, 2 * count, 2):
        block = peer.h2.encoder.encode(HEADERS)
        peer.sock.sendall(len(block).to_bytes(3, "big") + b"\x01\x04" + number.to_bytes(4, "big") + block)


def test_more_streams_than_allowed_end_the_connection(tmp_path: Path) -> None:
    def act(peer: Peer) -> bool:
        peer.events(h2.events.RemoteSettingsChanged)
        peer.send()  # acknowledges: from now on it knows the limit
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            _opened(peer, 300)
        return peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act)


def test_streams_over_a_limit_that_the_client_has_not_seen_are_refused_one_by_one(tmp_path: Path) -> None:
    def act(peer: Peer) -> set[int]:
        _opened(peer, 253)
        refused: set[int] = set()
        data = b""
        while len(refused) < 3:
            data += peer.sock.recv(65536)
            for number in range(1, 2 * 253, 2):
                if b"\0\0\x04\x03\0" + number.to_bytes(4, "big") + b"\0\0\0\x07" in data:
                    refused.add(number)
        return refused

    assert attack(tmp_path / "s", act) == {501, 503, 505}


@pytest.mark.parametrize(
    "frame",
    [
        b"\0\0\x08\x06\0\0\0\0\0" + b"12345678",  # PING
        b"\0\0\x08\x06\x01\0\0\0\0" + b"12345678",  # answers to none
        b"\0\0\0\x04\0\0\0\0\0",  # SETTINGS
        b"\0\0\0\x04\x01\0\0\0\0",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",  # WINDOW_UPDATE of one byte
        b"\0\0\x05\x02\0\0\0\0\x09\0\0\0\0\x10",  # PRIORITY
        b"\0\0\0\xee\0\0\0\0\x05",  # of a later version
        b"\0\0\0\x00\0\0\0\0\x01",  # empty DATA
        b"\0\0\x01\x00\x08\0\0\0\x01\0",  # DATA of padding
    ],
)
def test_flood_of_frames_that_move_nothing_ends_the_connection(tmp_path: Path, frame: bytes) -> None:
    def act(peer: Peer) -> bool:
        reader = threading.Thread(target=peer.is_closed_by_peer)
        reader.start()  # one that reads the answers, so that it is not stopped for that
        try:
            peer.request(b"\0\0\0\0\x09", end=False)
            for _ in range(20 + IDLE_FRAMES // 100):
                peer.sock.sendall(frame * 100)
        except (BrokenPipeError, ConnectionResetError):
            pass
        reader.join(60)
        return not reader.is_alive()

    assert attack(tmp_path / "s", act)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "3"),  # no message
        (b"\0\0\0", "3"),  # half a prefix
        (b"\0\0\0\0\x09abc", "3"),  # announces more than it sends
        (b"\0\0\0\0\x01abc", "3"),  # and less
        (b"\0\0\0\0\0\0\0\0\0\0", "3"),  # two messages
        (b"\x01\0\0\0\0", "12"),  # compressed
        (b"\0\xff\xff\xff\xff", "8"),  # 4 GiB
    ],
)
def test_lying_frames_get_a_status(tmp_path: Path, body: bytes, code: str) -> None:
    def act(peer: Peer) -> str:
        peer.request(body)
        return peer.trailers()["grpc-status"]

    assert attack(tmp_path / "s", act) == code


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({":method": "GET"}, {":status": "405"}),
        ({"content-type": "text/plain"}, {":status": "415"}),
        ({":path": "/x/../Version"}, {"grpc-status": "12"}),
        ({"grpc-timeout": "-1S"}, {"grpc-status": "3"}),
        ({"grpc-timeout": "999999999S"}, {"grpc-status": "3"}),
        ({"grpc-timeout": "٣S"}, {"grpc-status": "3"}),
    ],
)
def test_odd_headers_get_a_status(tmp_path: Path, changed: dict[str, str], expected: dict[str, str]) -> None:
    def act(peer: Peer) -> dict[str, str]:
        peer.request(b"\0\0\0\0\0", list((dict(HEADERS) | changed).items()))
        return peer.trailers()

    assert attack(tmp_path / "s", act).items() >= expected.items()


def test_deadline_of_zero_is_exceeded(tmp_path: Path) -> None:
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    def act(peer: Peer) -> str:
        headers = dict(HEADERS) | {":path": f"/{RUNTIME}/StartContainer", "grpc-timeout": "0n"}
        peer.request(b"\0\0\0\0\0", list(headers.items()))
        return peer.trailers()["grpc-status"]

    server = Server({RUNTIME: {"Version": version, "StartContainer": never}})
    assert attack(tmp_path / "s", act, server) == "4"


def test_request_that_never_ends_is_dropped(tmp_path: Path) -> None:
    def act(peer: Peer) -> str:
        peer.request(b"\0\0\0\0\x09abc", end=False)
        return peer.trailers()["grpc-status"]

    server = Server({RUNTIME: {"Version": version}}, limits=Limits(receive_s=0.1))
    assert attack(tmp_path / "s", act, server) == "4"


def test_bytes_in_flight_are_limited_over_all_calls(tmp_path: Path) -> None:
    def act(peer: Peer) -> str:
        for _ in range(6):
            peer.request(b"\0\0\0\x80\0" + b"x" * 10_000, end=False)
        return peer.trailers()["grpc-status"]

    server = Server({RUNTIME: {"Version": version}}, limits=Limits(message_bytes=200_000, in_flight_bytes=40_000))
    assert attack(tmp_path / "s", act, server) == "8"


def test_peer_that_never_reads_stops_being_read(tmp_path: Path) -> None:
    """Pings are answered by HTTP/2 itself: a peer that sends them and reads nothing must not fill our memory."""

    def act(peer: Peer) -> int:
        peer.sock.settimeout(0.3)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += peer.sock.send(b"\0\0\x08\x06\0\0\0\0\0" + b"12345678")
        except TimeoutError:
            pass
        return sent

    assert attack(tmp_path / "s", act) < 16 << 20


def test_stream_of_a_client_that_reads_nothing_is_not_asked_for_more(tmp_path: Path) -> None:
    made = 0

    async def endless(request: Any) -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"\x0a\x04" + b"abcd" * 256
            await asyncio.sleep(0)

    def act(peer: Peer) -> int:
        peer.sock.sendall(b"\0\0\x04\x08\0\0\0\0\0\x7f\0\0\0" + b"\0\0\x06\x04\0\0\0\0\0\0\x04\x7f\xff\xff\xff")
        peer.request(b"\0\0\0\0\0", list((dict(HEADERS) | {":path": f"/{RUNTIME}/GetContainerEvents"}).items()))
        before = 0
        while before != made or made == 0:  # until it stands still
            before = made
            threading.Event().wait(0.2)
        return made

    server = Server({RUNTIME: {"Version": version, "GetContainerEvents": endless}})
    assert 0 < attack(tmp_path / "s", act, server) < 10_000


def test_reply_that_is_not_taken_in_time_ends_its_call(tmp_path: Path) -> None:
    def large(request: Any) -> bytes:
        return b"\0" * 1_000_000

    def act(peer: Peer) -> int:
        peer.request(b"\0\0\0\0\0", list((dict(HEADERS) | {":path": f"/{RUNTIME}/ListContainers"}).items()))
        reset = peer.events(h2.events.StreamReset)[-1]
        return int(reset.error_code)

    server = Server({RUNTIME: {"Version": version, "ListContainers": large}}, limits=Limits(send_s=0.1))
    assert attack(tmp_path / "s", act, server) == 8


def test_calls_after_the_loops_millisecond_become_tasks_and_are_answered_too(tmp_path: Path) -> None:
    def slow(request: Any) -> pb.VersionResponse:
        begin = time.monotonic()
        while time.monotonic() - begin < 0.002:
            pass
        return pb.VersionResponse(version="0.1.0")

    def act(peer: Peer) -> int:
        for number in range(1, 41, 2):
            peer.h2.send_headers(number, HEADERS)
            peer.h2.send_data(number, b"\0\0\0\0\0", end_stream=True)
        peer.send()
        ended = 0
        while ended < 20:
            ended += sum(isinstance(event, h2.events.StreamEnded) for event in peer.events(h2.events.StreamEnded))
        return ended

    assert attack(tmp_path / "s", act, Server({RUNTIME: {"Version": slow}})) == 20


def test_goaway_lets_calls_finish_and_then_closes(tmp_path: Path) -> None:
    def act(peer: Peer) -> tuple[str, bool]:
        peer.h2.send_headers(1, HEADERS)
        peer.send()
        peer.sock.sendall(b"\0\0\x08\x07\0\0\0\0\0" + bytes(8))
        peer.h2.send_data(1, b"\0\0\0\0\0", end_stream=True)
        peer.send()
        return peer.trailers()["grpc-status"], peer.is_closed_by_peer()

    assert attack(tmp_path / "s", act) == ("0", True)


def test_unknown_frames_and_priorities_are_ignored(tmp_path: Path) -> None:
    def act(peer: Peer) -> str:
        peer.sock.sendall(b"\0\0\x03\xee\0\0\0\0\x05abc")
        peer.sock.sendall(b"\0\0\x05\x02\0\0\0\0\x09\0\0\0\0\x10")
        peer.request(b"\0\0\0\0\0")
        return peer.trailers()["grpc-status"]

    assert attack(tmp_path / "s", act) == "0"


def test_connection_that_ends_cancels_its_calls(tmp_path: Path) -> None:
    async def main() -> None:
        entered, cancelled = asyncio.Event(), asyncio.Event()

        async def hangs(request: Any) -> Any:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with listening(Server({RUNTIME: {"StartContainer": hangs}}), tmp_path / "s") as path:
            peer = Peer(path)
            peer.request(b"\0\0\0\0\0", list((dict(HEADERS) | {":path": f"/{RUNTIME}/StartContainer"}).items()))
            await entered.wait()
            peer.sock.close()
            await until(cancelled.is_set)

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_random_bytes_never_disturb_the_server(chunks: list[bytes], with_preface: bool) -> None:
    async def main() -> None:
        server = Server({RUNTIME: {"Version": version}})
        ours, theirs = socket.socketpair()
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve_on(ours))
            reader, writer = await asyncio.open_unix_connection(sock=theirs)
            for chunk in ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] if with_preface else []) + chunks:
                writer.write(chunk)
            writer.write_eof()
            await reader.read()
            writer.close()
        assert server.in_flight_bytes == 0

    asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40))
def test_request_split_at_any_place_is_the_same(size: int) -> None:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, HEADERS)
    client.send_data(1, b"\0\0\0\0\0", end_stream=True)
    data = client.data_to_send()

    async def main() -> str:
        ours, theirs = socket.socketpair()
        async with asyncio.TaskGroup() as group:
            group.create_task(Server({RUNTIME: {"Version": version}}).serve_on(ours))
            reader, writer = await asyncio.open_unix_connection(sock=theirs)
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await writer.drain()
            seen: list[Any] = []
            while not any(isinstance(event, h2.events.TrailersReceived) for event in seen):
                seen += client.receive_data(await reader.read(65536))
            writer.close()
        return next(
            _text(value) for event in seen if isinstance(event, h2.events.TrailersReceived) for _, value in event.headers
        )

    assert asyncio.run(main()) == "0"


def test_two_parties_in_one_process_talk_over_a_socketpair() -> None:
    async def main() -> str:
        ours, theirs = socket.socketpair()
        async with asyncio.TaskGroup() as group:
            group.create_task(Server({RUNTIME: {"Version": version}}).serve_on(ours))
            async with connect_socket(theirs) as client:
                reply = await client.runtime("Version", pb.VersionRequest())
        return str(reply.version)

    assert asyncio.run(main()) == "0.1.0"
