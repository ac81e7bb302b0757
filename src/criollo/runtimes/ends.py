"""What lies between a client's streams and the runtime of an exec: three pipes, or a terminal.

    Pipes        the command has pipes; crun gives them to the container's user, so none may be a file of the host, not
                 even /dev/null: what the client did not ask for is a pipe, too
    HandedOver   the runtime makes the terminal inside and hands its master to us (`--console-socket`); so does crun
    Relayed      the runtime sits at a terminal of ours and passes bytes and sizes on to that inside: runc takes a console
                 socket only with `--detach`, which would make its command nobody's child. (crun passes bytes, not sizes.)

All of it is owned here and let go of by `close`.
"""

import asyncio
import fcntl
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from criollo.aio.streams import FdReader, FdWriter, Size, Streams, readable
from criollo.errors import TimedOut, explain, from_os
from criollo.linux import terminal

PIPE_BYTES: Final = 1 << 20
_LARGE_PIPES: Final = 24  # more at once would use up what the kernel grants one user: fs.pipe-user-pages-soft
_HAND_OVER_LIMIT_S: Final = 30.0


class Ends:
    """Our ends: `outputs` are stdout and stderr, or the terminal's output alone. Not complete before `complete`."""

    is_terminal = False

    def __init__(self, streams: Streams) -> None:
        self.stdin: FdWriter | None = None
        self.outputs: list[FdReader] = []
        self.options: tuple[str, ...] = ()  # of the runtime's verb
        self._streams = streams
        self._child: list[int] = []  # the child's ends, until it has them
        self._kept: list[int] = []

    def open(self) -> tuple[int, int, int]:
        """Make everything; stdin, stdout and stderr for the runtime."""
        raise NotImplementedError

    async def complete(self) -> None:
        """Return when bytes can flow."""

    def take_what_is_there(self) -> None:
        """As `complete` for a runtime that has ended: what it has not handed over by now will never come."""

    def resize(self, size: Size) -> bool:
        """Set the terminal's size; whether the runtime must be told."""
        return False

    def let_go(self) -> None:
        """Close the child's ends: it has them now."""
        while self._child:
            os.close(self._child.pop())

    async def close(self) -> None:
        self.let_go()
        for reader in self.outputs:
            reader.close()
        if self.stdin is not None:
            await self.stdin.close()
        while self._kept:
            os.close(self._kept.pop())

    def _empty(self) -> int:
        """A stdin that has ended."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._child.append(read_end)
        os.close(write_end)
        return read_end

    def _unheard(self) -> int:
        """For the little that a runtime itself says; its log has that, too."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._kept.append(read_end)
        self._child.append(write_end)
        return write_end

    def _use(self, master: int) -> None:
        self._kept.append(master)
        self.outputs.append(FdReader(os.dup(master)))
        if self._streams.stdin is not None:
            self.stdin = FdWriter(os.dup(master))


class Pipes(Ends):
    """Large ones, as far as there are any, so that neither side wakes the other for each few bytes."""

    _large = 0  # of all execs

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
        self._enlarged = 0

    def open(self) -> tuple[int, int, int]:
        with explain("make the pipes of an exec"):
            if self._streams.stdin is None:
                stdin = self._empty()
            else:
                stdin, write_end = os.pipe2(os.O_CLOEXEC)
                self._child.append(stdin)
                self.stdin = FdWriter(write_end)
                self._enlarge(write_end)
            return stdin, self._output(self._streams.stdout is not None), self._output(self._streams.stderr is not None)

    async def close(self) -> None:
        await super().close()
        Pipes._large -= self._enlarged
        self._enlarged = 0

    def _output(self, is_heard: bool) -> int:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self._child.append(write_end)
        self.outputs.append(FdReader(read_end, is_roomy=is_heard and self._enlarge(read_end)))
        return write_end

    def _enlarge(self, fd: int) -> bool:
        if Pipes._large >= _LARGE_PIPES:
            return False
        try:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # EPERM: this user's share is used up; a small pipe is slower, and no more
            return False
        Pipes._large += 1
        self._enlarged += 1
        return True


class HandedOver(Ends):
    """The socket for it is in the bundle, while the runtime starts."""

    is_terminal = True

    def __init__(self, streams: Streams, bundle: Path) -> None:
        super().__init__(streams)
        self._path = bundle / f"exec-{secrets.token_hex(8)}"
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._master = -1

    def open(self) -> tuple[int, int, int]:
        with explain("make the console socket of an exec"):
            directory = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._kept.append(directory)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._listener.bind(f"/proc/self/fd/{directory}/{self._path.name}")  # a bundle's own path may be too long
            self._listener.listen(1)
            # Whom the path belongs to is settled by its directory, which is root's alone.
            self.options = ("--console-socket", f"/proc/{os.getpid()}/fd/{directory}/{self._path.name}")
            unheard = self._unheard()
            return self._empty(), unheard, unheard

    async def complete(self) -> None:
        """Take the terminal from the runtime.

        Raises:
            TimedOut: it gave none.
        """
        try:
            async with asyncio.timeout(_HAND_OVER_LIMIT_S):
                while not self._has_taken():
                    waited_for = self._connection or self._listener
                    assert waited_for is not None
                    await readable(waited_for.fileno())  # sock_accept of asyncio stumbles when cancelled as somebody connects
        except TimeoutError:
            raise TimedOut(f"cannot exec: the runtime handed over no terminal within {_HAND_OVER_LIMIT_S:g} s") from None

    def take_what_is_there(self) -> None:
        self._has_taken()

    def _has_taken(self) -> bool:
        """Go on as far as the runtime has come; whether the terminal is ours."""
        if self._master >= 0:
            return True
        assert self._listener is not None
        try:
            if self._connection is None:
                self._connection, _ = self._listener.accept()
                self._connection.setblocking(False)
            self._master = terminal.receive(self._connection)
            self._connection.close()
        except BlockingIOError:
            return False
        except OSError as error:
            raise from_os(error, "take the terminal of an exec from the runtime") from error
        self._use(self._master)
        return True

    def resize(self, size: Size) -> bool:
        if self._master >= 0:
            terminal.set_size(self._master, rows=size.rows, columns=size.columns)
        return False

    async def close(self) -> None:
        await super().close()
        for each in (self._connection, self._listener):
            if each is not None:
                each.close()
        self._path.unlink(missing_ok=True)


class Relayed(Ends):
    """The runtime sits at a raw terminal without being controlled by it: it is told of sizes by a signal."""

    is_terminal = True

    def __init__(self, streams: Streams) -> None:
        super().__init__(streams)
        self._master = -1

    def open(self) -> tuple[int, int, int]:
        with explain("make the terminal of an exec"):
            self._master, slave = terminal.open_relay()
        self._child.append(slave)
        self._use(self._master)
        return slave, slave, self._unheard()

    def resize(self, size: Size) -> bool:
        terminal.set_size(self._master, rows=size.rows, columns=size.columns)
        return True
