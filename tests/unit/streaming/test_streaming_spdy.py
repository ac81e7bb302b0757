"""SPDY connections over sockets: streams both ways, backpressure, hostile peers, the end."""

import asyncio
import contextlib
import os
import socket
import struct

import pytest
from support.spdy_pair import both, raw
from support.waiting import run, until

from criollo.streaming import spdy
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream
from criollo.wire import spdy_frames as frames
from criollo.wire.spdy_frames import Reset
from criollo.wire.spdy_headers import Deflater
from criollo.wire.spdy_windows import SESSION_WINDOW, STREAM_WINDOW, Budget


async def opened(client: SpdyConnection, server: SpdyConnection, **headers: str) -> tuple[SpdyStream, SpdyStream]:
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(client.open(headers))
        far = await server.accept()
        assert far is not None
        await far.reply()
    return opening.result(), far


async def everything(stream: SpdyStream) -> bytes:
    parts = []
    while part := await stream.read():
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("has_flow", [True, False])
@pytest.mark.parametrize("chunk_bytes", [1000, 262_144, 300_000, 5 << 20])
def test_bytes_go_both_ways_at_once(has_flow: bool, chunk_bytes: int) -> None:
    async def test() -> None:
        sent = os.urandom(5 << 20)
        async with both(has_flow=has_flow) as (client, server):
            near, far = await opened(client, server, port="80")
            assert far.headers == {"port": "80"}
            async with asyncio.TaskGroup() as group:
                results = [group.create_task(everything(stream)) for stream in (near, far)]
                for stream in (near, far):
                    group.create_task(write_and_close(stream, sent, chunk_bytes))
            assert [result.result() == sent for result in results] == [True, True]
            assert not client._streams
            assert not server._streams
            assert server.payload_bytes == 2 * len(sent)

    run(test())


async def write_and_close(stream: SpdyStream, octets: bytes, chunk_bytes: int = 300_000) -> None:
    for at in range(0, len(octets), chunk_bytes):
        await stream.write(octets[at : at + chunk_bytes])
    await stream.close()


@pytest.mark.parametrize("has_flow", [True, False])
def test_hundred_streams_at_once(has_flow: bool) -> None:
    async def echo(stream: SpdyStream) -> None:
        while part := await stream.read():
            await stream.write(part)
        await stream.close()

    async def ask(client: SpdyConnection, n: int) -> None:
        stream = await client.open({"n": str(n)})
        octets = b"%05d" % n * 20_000
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(everything(stream))
            await write_and_close(stream, octets)
        assert answer.result() == octets

    async def test() -> None:
        async with both(max_streams=200, has_flow=has_flow) as (client, server), asyncio.TaskGroup() as group:
            for n in range(100):
                group.create_task(ask(client, n))
            for _ in range(100):
                stream = await server.accept()
                assert stream is not None
                await stream.reply()
                group.create_task(echo(stream))

    run(test())


@pytest.mark.parametrize("has_flow", [True, False])
def test_writer_waits_for_a_reader_that_does_not_read(has_flow: bool) -> None:
    async def test() -> None:
        async with both(has_flow=has_flow) as (client, server):
            near, far = await opened(client, server)
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(write_and_close(near, bytes(16 << 20)))
                await until(lambda: far.unread_bytes > 0)
                for _ in range(300):
                    await asyncio.sleep(0)
                assert not writing.done()
                assert far.unread_bytes <= STREAM_WINDOW
                assert len(await everything(far)) == 16 << 20

    run(test())


def test_stream_that_nobody_reads_does_not_hold_up_others_when_there_is_flow_control() -> None:
    async def test() -> None:
        async with both() as (client, server):
            near, _ = await opened(client, server)
            other, far = await opened(client, server)
            async with asyncio.TaskGroup() as group:
                stuck = group.create_task(near.write(bytes(4 << 20)))
                group.create_task(write_and_close(other, bytes(3 << 20)))
                assert len(await everything(far)) == 3 << 20
                stuck.cancel()

    run(test())


def test_unread_bytes_of_all_streams_are_bounded_without_flow_control() -> None:
    async def test() -> None:
        async with both(max_streams=100, has_flow=False) as (client, server):
            pairs = [await opened(client, server) for _ in range(60)]
            async with asyncio.TaskGroup() as group:
                for near, _ in pairs:
                    group.create_task(write_and_close(near, bytes(400_000)))
                await until(lambda: bool(server._full))
                for _ in range(300):
                    await asyncio.sleep(0)
                assert server._unread_bytes <= SESSION_WINDOW + (1 << 20)
                results = [group.create_task(everything(far)) for _, far in pairs]
            assert [len(result.result()) for result in results] == [400_000] * 60
            assert server._unread_bytes == 0

    run(test())


def test_stream_that_is_given_up_after_its_end_counts_no_more() -> None:
    async def test() -> None:
        async with both(has_flow=False) as (client, server):
            near, far = await opened(client, server)
            await near.write(bytes(100_000))
            await near.close()
            await client.ping()
            await far.close()
            await far.reset()
            assert server._unread_bytes == 0

    run(test())


def test_ignored_stream_takes_anything() -> None:
    async def test() -> None:
        async with both(has_flow=False) as (client, server):
            near, far = await opened(client, server)
            far.drop()
            await near.write(bytes(8 << 20))
            await near.close()
            assert await far.read() == b""

    run(test())


def test_end_of_one_direction_leaves_the_other() -> None:
    async def test() -> None:
        async with both() as (client, server):
            near, far = await opened(client, server)
            await near.close()
            await near.close()
            assert await far.read() == b""
            assert await far.read() == b""
            await far.write(b"still here")
            assert await near.read() == b"still here"
            with pytest.raises(BrokenPipeError):
                await near.write(b"x")

    run(test())


def test_reset_is_an_error_for_the_other_side_in_both_directions() -> None:
    async def test() -> None:
        async with both() as (client, server):
            near, far = await opened(client, server)
            await near.write(b"lost")
            await near.reset()
            await until(lambda: far.is_lost)
            with pytest.raises(ConnectionResetError):
                await far.read()
            with pytest.raises(ConnectionResetError):
                await far.write(b"x")
            with pytest.raises(ConnectionResetError):
                await near.read()

    run(test())


def test_what_came_whole_can_be_read_after_the_connection_has_gone() -> None:
    async def test() -> None:
        async with both() as (client, server):
            whole, far_whole = await opened(client, server)
            cut, far_cut = await opened(client, server)
            await whole.write(b"all of it")
            await whole.close()
            await cut.write(b"some of")
            await client.ping()
            client.abort()
            await server.ended.wait()
            assert await everything(far_whole) == b"all of it"
            assert await far_cut.read() == b"some of"
            with pytest.raises(ConnectionResetError):
                await far_cut.read()
            assert await server.accept() is None

    run(test())


async def open_refused(client: SpdyConnection) -> None:
    with pytest.raises(ConnectionRefusedError):
        await client.open({})


def test_refused_stream_is_told_to_who_opens_it() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(open_refused(client))
            stream = await server.accept()
            assert stream is not None
            await stream.refuse()

    run(test())


def test_more_streams_than_allowed_are_refused() -> None:
    async def test() -> None:
        async with both(max_streams=1) as (client, server):
            await opened(client, server)
            with pytest.raises(ConnectionRefusedError):
                await client.open({})

    run(test())


def test_server_that_takes_no_more_refuses_those_that_wait_too() -> None:
    async def test() -> None:
        async with both() as (client, server), asyncio.TaskGroup() as group:
            group.create_task(open_refused(client))
            await until(lambda: bool(server._arrived))
            server.take_no_more()
            assert await server.accept() is None

    run(test())


@pytest.mark.parametrize("refuses_all", [False, True])
def test_refused_stream_that_had_come_whole_counts_no_more(refuses_all: bool) -> None:
    async def test() -> None:
        async with raw() as (peer, server):
            whole = frames.syn_stream(1, Deflater().block({})) + frames.payload_head(1, 1000, frames.FIN) + bytes(1000)
            await asyncio.get_running_loop().sock_sendall(peer, whole)
            await until(lambda: server._unread_bytes == 1000)
            if refuses_all:
                server.take_no_more()
            else:
                stream = await server.accept()
                assert stream is not None
                await stream.refuse()
            assert server._unread_bytes == 0

    run(test())


def test_closing_delivers_what_was_written_though_the_client_still_sends() -> None:
    async def test() -> None:
        async with both(has_flow=False) as (client, server):
            near, far = await opened(client, server)
            async with asyncio.TaskGroup() as group:
                group.create_task(flood(near))
                await until(lambda: far.unread_bytes > 0)
                await far.write(b"x" * (1 << 20))
                await far.close()
                closing = group.create_task(server.close())
                assert await everything(near) == b"x" * (1 << 20)
                await client.close()
                await closing
            assert server.ended.is_set()

    run(test())


async def flood(stream: SpdyStream) -> None:
    try:
        while True:
            await stream.write(bytes(100_000))
    except ConnectionError:
        pass


def test_peer_that_says_goodbye_opens_no_more() -> None:
    async def test() -> None:
        async with both() as (client, server):
            await opened(client, server)
            async with asyncio.TaskGroup() as group:
                group.create_task(client.close())
                assert await server.accept() is None
                await server.close()
            with pytest.raises(ConnectionResetError):
                await server.open({})

    run(test())


def test_cancelled_writer_gives_its_turn_away() -> None:
    async def test() -> None:
        async with both(max_streams=20, has_flow=False) as (client, server):
            pairs = [await opened(client, server) for _ in range(3)]
            far = [stream for _, stream in pairs]
            async with asyncio.TaskGroup() as group:
                writing = [group.create_task(write_and_close(near, bytes(6 << 20))) for near, _ in pairs]
                await until(lambda: len(client._turns) == 3)
                writing[0].cancel()
                reading = [group.create_task(everything(stream)) for stream in far[1:]]
                await asyncio.wait([group.create_task(drain(far[0])), *reading], return_when=asyncio.ALL_COMPLETED)
            assert [len(result.result()) for result in reading] == [6 << 20] * 2

    async def drain(stream: SpdyStream) -> None:
        stream.drop()

    run(test())


def test_writer_that_is_reset_as_its_turn_comes_gives_it_away() -> None:
    async def write_all(stream: SpdyStream) -> None:
        with contextlib.suppress(ConnectionResetError):
            await stream.write(bytes(8 << 20))

    async def test() -> None:
        async with both(has_flow=False) as (client, server):
            assert client._transport is not None
            pairs = [await opened(client, server) for _ in range(2)]
            client._transport.pause_reading()
            async with asyncio.TaskGroup() as group:
                writing = [group.create_task(write_all(far)) for _, far in pairs]
                await until(lambda: len(server._turns) == 2)
                server.resume_writing()  # both in one turn of the loop, before any writer runs
                server._drop(next(iter(server._turns)), "reset by the peer")
                await asyncio.wait(writing, timeout=60)
                assert [task.done() for task in writing] == [True, True]

    run(test())


def test_server_says_nothing_before_its_client() -> None:
    async def test() -> None:
        async with raw() as (peer, server):
            for _ in range(20):
                await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            assert not server.ended.is_set()

    run(test())


def test_broken_protocol_gets_a_goodbye_and_the_end() -> None:
    async def test() -> None:
        async with raw() as (peer, server):
            peer.send(b"\x80\x02" + frames.ping(1)[2:])
            await server.ended.wait()
            assert "SPDY" in server.failure
            octets = await received(peer)
            assert frames.read_head(octets).kind == frames.FrameKind.GOAWAY

    run(test())


async def received(peer: socket.socket) -> bytes:
    octets = b""
    while part := await asyncio.get_running_loop().sock_recv(peer, 65536):
        octets += part
    return octets


def test_peer_that_never_reads_holds_up_its_writer_and_the_end_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spdy, "_STALL_S", 0.05)

    async def test() -> None:
        async with raw() as (peer, server):
            await asyncio.get_running_loop().sock_sendall(peer, frames.syn_stream(1, Deflater().block({})))
            stream = await server.accept()
            assert stream is not None
            await stream.reply()
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(flood(stream))
                await until(lambda: bool(server._turns))
                assert server._transport is not None
                assert server._transport.get_write_buffer_size() <= 1 << 20
                await server.close()
                await writing
            assert server.ended.is_set()

    run(test())


def test_silent_peer_is_pinged_once_it_has_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spdy, "_QUIET_S", 0.01)

    async def test() -> None:
        async with raw() as (peer, _):
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(peer, frames.ping(1))
            assert await loop.sock_recv(peer, 12) == frames.ping(1)
            assert await loop.sock_recv(peer, 12) == frames.ping(2)

    run(test())


def test_peer_that_pings_and_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Budget, "charge", lambda self, now: None)

    async def test() -> None:
        async with raw() as (peer, server):
            pings = frames.ping(1) * 10_000
            loop = asyncio.get_running_loop()
            try:
                while not server.ended.is_set():
                    await loop.sock_sendall(peer, pings)
            except ConnectionError:
                pass
            await server.ended.wait()

    run(test())


def test_small_frames_do_not_hold_the_loop() -> None:
    async def test() -> None:
        async with raw() as (peer, server):
            deflater = Deflater()
            one = frames.payload_head(1, 1) + b"x"
            octets = frames.syn_stream(1, deflater.block({})) + one * 10_000 + frames.payload_head(1, 0, frames.FIN)
            turns, sending = 0, asyncio.get_running_loop().sock_sendall(peer, octets)
            async with asyncio.TaskGroup() as group:
                group.create_task(sending)
                stream = await server.accept()
                assert stream is not None
                while stream.unread_bytes < 10_000:
                    turns += 1
                    await asyncio.sleep(0)
            assert turns > 20
            assert len(stream._chunks) < 10
            assert await everything(stream) == b"x" * 10_000

    run(test())


def test_streams_opened_and_reset_leave_nothing_to_accept() -> None:
    async def test() -> None:
        async with raw() as (peer, server):
            deflater = Deflater()
            octets = b"".join(
                frames.syn_stream(1 + 2 * n, deflater.block({})) + frames.reset(1 + 2 * n, Reset.CANCEL) for n in range(500)
            )
            await asyncio.get_running_loop().sock_sendall(peer, octets + frames.syn_stream(1001, deflater.block({"a": "b"})))
            await until(lambda: 1001 in server._streams)
            assert len(server._arrived) == 1
            assert len(server._streams) == 1

    run(test())


def test_connection_starts_on_a_transport_whose_client_has_gone() -> None:
    async def test() -> None:
        near, far = socket.socketpair()
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=far)
        transport.abort()
        near.close()
        server = SpdyConnection()
        server.start(transport)
        await server.ended.wait()
        assert await server.accept() is None
        await server.close()

    run(test())


def test_closing_after_a_peer_that_reset_the_connection() -> None:
    async def test() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        peer = socket.create_connection(listener.getsockname())
        taken, _ = listener.accept()
        server = SpdyConnection()
        await asyncio.get_running_loop().create_connection(lambda: server, sock=taken)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        listener.close()
        await server.close()
        assert server.ended.is_set()

    run(test())


def test_close_before_a_transport_is_the_end() -> None:
    async def test() -> None:
        server = SpdyConnection()
        await server.close()
        assert await server.accept() is None

    run(test())
