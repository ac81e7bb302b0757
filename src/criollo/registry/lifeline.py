"""One transfer's hold on what it waits for, so that it can be ended from another thread.

A thread cannot be cancelled, but everything a transfer waits for can: a socket that is shut down makes connect, handshake and
reading return; a wake descriptor ends pauses and waits for a full pipe. Only a name lookup in progress runs to its own end
(the resolver's limits). The owner closes the lifeline after the thread has ended.
"""

import asyncio
import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from criollo.errors import CriolloError

T = TypeVar("T")

# Called in transfers' threads for every piece of a document that comes, for whoever watches over several transfers.
arrived: ContextVar[Callable[[], None]] = ContextVar("arrived", default=lambda: None)


class Aborted(CriolloError):
    """The transfer was ended on purpose; whoever did it hears a cancellation instead."""


class Lifeline:
    """See the module; `abort` may come from any thread, the rest belongs to the transfer's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """`loop` is where the transfer's coroutines run, if it has any."""
        self._loop = loop
        self.arrived = arrived.get()
        self._lock = threading.Lock()
        self._aborted = False
        self._held: socket.socket | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._aborted = True
            self._let_go()
            os.close(self._wake)
            self._wake = -1

    def abort(self) -> None:
        """End the transfer; harmless when it has ended."""
        with self._lock:
            self._aborted = True
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
            if self._held is not None:
                _shut(self._held)

    def check(self) -> None:
        """Raise `Aborted` if somebody ended the transfer."""
        if self._aborted:
            raise Aborted("the transfer was ended")

    def hold(self, sock: socket.socket) -> None:
        """The transfer now depends on `sock`, through a descriptor of our own: TLS and closing do not lose it."""
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        with self._lock:
            if self._aborted:
                copy.close()
            else:
                self._let_go()
                self._held = copy
        self.check()

    def let_go(self) -> None:
        """The transfer depends on no socket now: the last one may become another's."""
        with self._lock:
            self._let_go()

    def pause(self, seconds: float) -> None:
        """Wait, unless the transfer is ended meanwhile."""
        waiting = select.poll()
        waiting.register(self._wake, select.POLLIN)
        waiting.poll(max(0.0, seconds) * 1000)
        self.check()

    def wait_writable(self, fd: int) -> None:
        """Return when `fd` takes bytes or its reader is gone."""
        waiting = select.poll()
        waiting.register(self._wake, select.POLLIN)
        waiting.register(fd, select.POLLOUT)
        waiting.poll()
        self.check()

    def wait_readable(self, fd: int) -> None:
        """Return when `fd` has something to read."""
        waiting = select.poll()
        waiting.register(self._wake, select.POLLIN)
        waiting.register(fd, select.POLLIN)
        waiting.poll()
        self.check()

    def on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the transfer's loop; when the transfer is ended, it is cancelled and waited for."""
        loop = self._loop
        if loop is None:
            work.close()
            raise RuntimeError("this lifeline knows no loop")
        done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        started, ended, given_up = threading.Event(), threading.Event(), threading.Event()

        async def run() -> T:
            if given_up.is_set():  # set on the loop as well, so that either comes first: `work` and `done` are gone
                raise asyncio.CancelledError
            started.set()
            try:
                return await work
            finally:
                os.eventfd_write(done, 1)
                ended.set()

        future = asyncio.run_coroutine_threadsafe(run(), loop)
        try:
            self.wait_readable(done)
            return future.result()
        except Aborted:
            loop.call_soon_threadsafe(given_up.set)
            given_up.wait()
            if started.is_set():
                future.cancel()
                ended.wait()
            else:
                work.close()
            raise
        finally:
            os.close(done)

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected yet, or not any more
        sock.shutdown(socket.SHUT_RDWR)
