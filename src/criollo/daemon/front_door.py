"""One unix socket: the first bytes of a connection decide whether gRPC or HTTP/1 gets it.

    door = FrontDoor(path, grpc=server.serve, http=http.serve)
    door.open()                       # bound and listening; refuses a socket that another daemon serves
    await door.run()                  # until cancelled, or until `stop_accepting` and the last connection ends

The decision is made once: an HTTP/2 preface is gRPC, a method in capitals and a space is HTTP/1, anything else is closed
without a word, and so is who says nothing in time. The socket appears under its name only when its mode is right.
"""

import asyncio
import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Awaitable, Callable
from enum import Enum
from pathlib import Path
from typing import cast

import msgspec

from criollo.errors import Invalid, WrongState, explain
from criollo.telemetry.log import get_logger
from criollo.telemetry.seldom import Seldom

log = get_logger(__name__)

Handover = Callable[[asyncio.Transport, bytes], Awaitable[None]]
"""Takes a connection whose reading is paused and the bytes read so far; returns when the connection has ended."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113, section 3.4
SOCKET_PATH_BYTES = 107  # sun_path of linux/un.h without its final NUL
_METHOD = re.compile(rb"[A-Z]{1,20} ")
_METHOD_BEGUN = re.compile(rb"[A-Z]{0,20}")


class Speaks(Enum):
    GRPC = "gRPC"
    HTTP = "HTTP/1"
    NEITHER = "neither"
    UNCLEAR = "not enough bytes yet"


def recognise(first: bytes) -> Speaks:
    """What a connection speaks that begins with these bytes."""
    if first.startswith(PREFACE):
        return Speaks.GRPC
    if PREFACE.startswith(first):
        return Speaks.UNCLEAR
    if _METHOD.match(first):
        return Speaks.NEITHER if first.startswith(b"PRI ") else Speaks.HTTP
    return Speaks.UNCLEAR if _METHOD_BEGUN.fullmatch(first) else Speaks.NEITHER


class DoorLimits(msgspec.Struct, frozen=True, kw_only=True):
    connections: int = 1000
    first_bytes_s: float = 10


class FrontDoor:
    """The listening socket and the connections that came through it."""

    def __init__(
        self, path: Path, *, grpc: Handover, http: Handover, mode: int = 0o660, limits: DoorLimits | None = None
    ) -> None:
        self.path, self.mode = path, mode
        self.limits = limits or DoorLimits()
        self._handovers = {Speaks.GRPC: grpc, Speaks.HTTP: http}
        self._sock: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._stopped = asyncio.Event()
        self._refusals = Seldom()
        self.open_connections = 0

    def open(self) -> None:
        """Bind and listen. The parent directory is made, 0700, if it is not there.

        Raises WrongState while another daemon answers on the path, Invalid for a path that cannot be a socket.
        """
        if len(os.fsencode(self.path)) + len(_STAGED) > SOCKET_PATH_BYTES:
            raise Invalid("listen", str(self.path), f"a path of at most {SOCKET_PATH_BYTES - len(_STAGED)} bytes")
        with explain(f"listen on {self.path}"):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_if_served(self.path)
            self._sock = _bind(self.path, self.mode)
            found = os.stat(self.path)
        self._inode = (found.st_dev, found.st_ino)

    async def run(self) -> None:
        """Take connections until cancelled; cancellation ends those that are open."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self._server = await loop.create_unix_server(lambda: _Greeting(self), sock=self._sock)
                await self._stopped.wait()
            finally:  # before the connections end: the group takes no further one meanwhile
                self.stop_accepting()

    def stop_accepting(self) -> None:
        """Take no further connection; the name goes, if it is still ours. May be repeated, also by who never ran."""
        self._stopped.set()
        if self._inode is not None:
            with contextlib.suppress(OSError):
                found = os.stat(self.path)
                if (found.st_dev, found.st_ino) == self._inode:
                    self.path.unlink()
            self._inode = None
        if self._server is not None:
            self._server.close()
        elif self._sock is not None:
            self._sock.close()

    def admit(self, greeting: "_Greeting") -> bool:
        """Start to greet a new connection; False when there are too many."""
        if self._group is None or self._stopped.is_set() or self.open_connections >= self.limits.connections:
            if times := self._refusals.due():
                log.warning("connection refused: too many are open", limit=self.limits.connections, times=times)
            return False
        self.open_connections += 1
        self._group.create_task(self._greet(greeting)).add_done_callback(lambda _: self._ended(greeting))
        return True

    def _ended(self, greeting: "_Greeting") -> None:
        """Let a connection go, also one whose task was cancelled before its first step."""
        greeting.transport.close()
        self.open_connections -= 1

    async def _greet(self, greeting: "_Greeting") -> None:
        transport = greeting.transport
        try:
            async with asyncio.timeout(self.limits.first_bytes_s):
                speaks = await greeting.speaks
        except TimeoutError:
            log.debug("connection closed: it said nothing that tells gRPC from HTTP", bytes=len(greeting.first))
            speaks = Speaks.NEITHER
        if speaks is Speaks.NEITHER:
            transport.abort()
            return
        try:
            await self._handovers[speaks](transport, bytes(greeting.first))
        except Exception:  # the border of a connection: one that fails must not close the door for all
            log.exception("connection ended by an error of our own", speaks=speaks.value)


class _Greeting(asyncio.Protocol):
    """Collects first bytes until they say enough, then stops reading."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self.first = bytearray()
        self.speaks: asyncio.Future[Speaks] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if not self._door.admit(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.first += data
        speaks = recognise(bytes(self.first))
        if speaks is not Speaks.UNCLEAR:
            self.transport.pause_reading()
            self._decide(speaks)

    def connection_lost(self, exc: Exception | None) -> None:
        self._decide(Speaks.NEITHER)

    def _decide(self, speaks: Speaks) -> None:
        if not self.speaks.done():
            self.speaks.set_result(speaks)


_STAGED = ".new"


def _refuse_if_served(path: Path) -> None:
    """Raise WrongState if somebody answers on `path`, Invalid if it is no socket; a dead socket is left to be replaced."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Invalid("listen", str(path), "the path of a socket, or of nothing yet; move the file away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(os.fspath(path))
    if refused in (errno.ECONNREFUSED, errno.ENOENT):
        return
    raise WrongState("socket", str(path), "served by another daemon", "a free path; stop that daemon or set another `listen`")


def _bind(path: Path, mode: int) -> socket.socket:
    """A listening socket that appears at `path` at once and with its mode; a dead one there is replaced."""
    staged = path.with_name(path.name + _STAGED)
    staged.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(os.fspath(staged))
        os.chmod(staged, mode)
        sock.listen(128)
        os.rename(staged, path)
    except BaseException:
        sock.close()
        staged.unlink(missing_ok=True)
        raise
    return sock
