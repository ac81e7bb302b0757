"""One transfer's hold on what it waits for, so that it can be ended from another thread.

A thread cannot be cancelled, but everything a transfer waits for can: a socket that is shut down makes connect, handshake and
reading return; a wake descriptor ends pauses and waits for a full pipe. Only a name lookup in progress runs to its own end
(the resolver's limits). The owner closes the lifeline after the thread has ended.
"""

import contextlib
import os
import select
import socket
import threading
from typing import Self

from criollo.errors import CriolloError


class Aborted(CriolloError):
    """The transfer was ended on purpose; whoever did it hears a cancellation instead."""


class Lifeline:
    """See the module; `abort` may come from any thread, the rest belongs to the transfer's thread."""

    def __init__(self) -> None:
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

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # not connected yet, or not any more
        sock.shutdown(socket.SHUT_RDWR)
