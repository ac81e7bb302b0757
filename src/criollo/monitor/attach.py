"""Attach: a client at the streams of a container's own process, through its monitor.

    conmon ──SOCK_SEQPACKET──▶ us    a packet is one byte for the stream (2 stdout, 3 stderr) and up to 8 KiB; a terminal's
                                     output is all stdout; what was before is in the log only; its end: conmon has ended
    us     ──────────────────▶ conmon    up to 32 KiB of stdin; our shutdown closes the container's stdin if it is stdin_once

Conmon writes to its clients one after the other and waits for each: one that takes nothing holds up the container, its
log, its exit and every other client. So what comes is read whether the client takes it or not, up to `BUFFER_BYTES`; only
then conmon has to wait, for `STALL_S` at most, then the client is let go. A container that is ending is not held at all.
With stdin_once conmon takes the end of *any* client for the end of stdin, also of one that only watched.

Source: conmon 2.1, src/conn_sock.c, src/ctr_stdio.c.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio.streams import Size, Source, Streams, Writer
from criollo.aio.together import first
from criollo.errors import CriolloError, TimedOut, WrongState, from_os
from criollo.monitor import console

BUFFER_BYTES: Final = 1 << 20
LAST_BYTES: Final = 16 << 20  # of a container that is ending: what a client does not take beyond is dropped
STALL_S: float = 60

STDOUT, STDERR = 2, 3
_PACKET_BYTES: Final = 32 << 10  # conmon reads one byte less of each of ours
_RESIZE_PAUSE_S: Final = 0.1
_STDIN_BYTES: Final = 16 << 10
_PACKETS_A_TURN: Final = 64
_CONNECT_LIMIT_S: Final = 10.0
_CONNECT_PAUSE_S: Final = 0.01


class Target(NamedTuple):
    """A container to attach to, as it was created."""

    container_id: str
    bundle: Path
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


async def attach(target: Target, streams: Streams, *, ending: asyncio.Event) -> bool:
    """Pass bytes on until the container's output has ended and arrived. `streams` are left open.

    The end of the client's stdin ends the attach too, where the container's stdin goes on without us and is no terminal.
    True when the monitor has ended, and the container with it.
    `ending` says that the container is being killed or has ended.

    Raises:
        WrongState: the container has no monitor any more.
        TimedOut: the monitor does not answer, or the client took nothing for `STALL_S` while the container had to wait.
    """
    connection = await _connect(target)
    output = _Output(connection)
    try:
        output.listen()
        await first(
            _deliver(output, streams),
            _inputs(target, connection, streams),
            output.stalled(target.container_id),
            _unbound(output, ending),
        )
        return output.has_ended
    finally:
        output.close()
        connection.close()


async def _connect(target: Target) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with console.attach_address(target.bundle) as address:
            pause_s = _CONNECT_PAUSE_S
            async with asyncio.timeout(_CONNECT_LIMIT_S):
                while not _connected(connection, address):
                    await asyncio.sleep(pause_s)
                    pause_s *= 1.5
    except BaseException as error:
        connection.close()
        raise _refusal(target, error) from None
    return connection


def _refusal(target: Target, error: BaseException) -> BaseException:
    """What a client is told of a connection that could not be made."""
    what = f"cannot attach to container {target.container_id}"
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return WrongState("container", target.container_id, "without a living monitor", "a running one")
    if isinstance(error, TimeoutError):
        return TimedOut(f"{what}: its monitor takes no client, because others wait or hold it up")
    return from_os(error, what) if isinstance(error, OSError) else error


def _connected(connection: socket.socket, address: str) -> bool:
    try:
        connection.connect(address)
    except BlockingIOError:  # unix(7): its backlog is full
        return False
    return True


class _Output:
    """What the monitor sent and the client has not taken yet."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._packets: deque[bytes] = deque()
        self._held_bytes, self._limit_bytes = 0, BUFFER_BYTES
        self._is_listening = self.has_ended = False
        self._news, self._gave_up = asyncio.Event(), asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        if not self._is_listening and not self.has_ended:
            self._is_listening = True
            asyncio.get_running_loop().add_reader(self._connection, self._receive)
        self._rest()

    def close(self) -> None:
        self._pause()
        self._rest()

    def unbound(self) -> None:
        """From now on nobody waits for the client."""
        self._limit_bytes = LAST_BYTES
        self.listen()

    async def stalled(self, container_id: str) -> None:
        """Never returns, but raises when the client has made the container wait for too long."""
        await self._gave_up.wait()
        raise TimedOut(
            f"attach to container {container_id} ended: its client took no output for {STALL_S:g} s while the container waited"
        )

    async def take(self) -> list[tuple[int, bytes]]:
        """All that is there, by stream, in order; empty at the end."""
        while True:
            while not self._packets and not self.has_ended:
                self._news.clear()
                await self._news.wait()
            taken, self._packets, self._held_bytes = self._packets, deque(), 0
            self.listen()
            if (parts := list(by_stream(taken))) or not taken:
                return parts

    def _receive(self) -> None:
        for _ in range(_PACKETS_A_TURN):
            try:
                packet = self._connection.recv(_PACKET_BYTES)
            except BlockingIOError:
                break
            except OSError:  # the monitor was killed with bytes of ours unread
                packet = b""
            if not packet:
                self.has_ended = True
                self._pause()
                break
            self._keep(packet)
            if not self._is_listening:
                break
        self._news.set()

    def _keep(self, packet: bytes) -> None:
        if self._held_bytes + len(packet) <= LAST_BYTES:
            self._packets.append(packet)
            self._held_bytes += len(packet)
        if self._held_bytes >= self._limit_bytes and self._limit_bytes < LAST_BYTES:
            self._pause()
            self._patience = asyncio.get_running_loop().call_later(STALL_S, self._gave_up.set)

    def _pause(self) -> None:
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._connection)

    def _rest(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def by_stream(packets: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Packets as (stream, bytes), neighbours of one stream joined; one with an unknown stream is left out."""
    stream = 0
    pieces: list[memoryview] = []
    for packet in packets:
        if not packet or packet[0] not in (STDOUT, STDERR):
            continue
        if packet[0] != stream and pieces:
            yield stream, b"".join(pieces)
            pieces = []
        stream = packet[0]
        pieces.append(memoryview(packet)[1:])
    if pieces:
        yield stream, b"".join(pieces)


async def _deliver(output: _Output, streams: Streams) -> None:
    writers: dict[int, Writer | None] = {STDOUT: streams.stdout, STDERR: streams.stderr}
    while parts := await output.take():
        for stream, data in parts:
            if (writer := writers[stream]) is not None:
                await writer.write(data)


async def _inputs(target: Target, connection: socket.socket, streams: Streams) -> None:
    """Keys and sizes; returns only when the end of stdin ends the attach."""
    keys = _feed(target, connection, streams.stdin) if streams.stdin is not None else _never()
    await first(keys, _resize(target, streams.sizes))


async def _feed(target: Target, connection: socket.socket, source: Source) -> None:
    if not target.stdin:
        source.drop()
        await _never()
    while data := await source.read():
        if not await _sent(connection, data):  # the monitor ends; its last words are still to be read
            source.drop()
            await _never()
    if target.stdin_once:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
    elif not target.tty:
        return
    await _never()


async def _sent(connection: socket.socket, data: bytes) -> bool:
    loop = asyncio.get_running_loop()
    try:
        for start in range(0, len(data), _STDIN_BYTES):
            await loop.sock_sendall(connection, data[start : start + _STDIN_BYTES])
    except OSError:
        return False
    return True


async def _resize(target: Target, sizes: AsyncIterator[Size] | None) -> None:
    """Conmon 2.1 takes the first of two sizes twice when it reads both at once, so each is given time to be read alone."""
    if sizes is not None and target.tty:
        async for size in sizes:
            with contextlib.suppress(CriolloError):  # it ends just now, or conmon is behind: the next one counts
                console.resize(target.container_id, target.bundle, rows=size.rows, columns=size.columns)
            await asyncio.sleep(_RESIZE_PAUSE_S)
    await _never()


async def _unbound(output: _Output, ending: asyncio.Event) -> None:
    await ending.wait()
    output.unbound()
    await _never()


async def _never() -> None:
    await asyncio.get_running_loop().create_future()
