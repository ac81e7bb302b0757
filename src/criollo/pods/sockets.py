"""Sockets that were made in a pod's network namespace: each keeps it alive, so a pod's stop ends them."""

import asyncio
import contextlib
import os
import socket
import struct
import weakref
from typing import Final

from criollo.model.ids import PodId

_CLOSE_LIMIT_S: Final = 1.0
_CLOSE_PAUSE_S: Final = 0.005
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Forwards:
    """The sockets that are open into pods; one that its user has closed is forgotten by itself."""

    def __init__(self) -> None:
        self._sockets: dict[str, weakref.WeakSet[socket.socket]] = {}

    def add(self, pod_id: PodId, connection: socket.socket) -> None:
        self._sockets.setdefault(pod_id, weakref.WeakSet()).add(connection)

    async def end(self, pod_id: PodId) -> None:
        """Shut down all connections into a pod; none of them keeps its namespace when this returns."""
        for connection in self._living(pod_id):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
                connection.shutdown(socket.SHUT_RDWR)
        try:
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await self._all_closed(pod_id)
        except TimeoutError:
            for connection in self._living(pod_id):
                _bury(connection)
        self._sockets.pop(pod_id, None)

    async def _all_closed(self, pod_id: PodId) -> None:
        pause_s = _CLOSE_PAUSE_S
        while self._living(pod_id):
            await asyncio.sleep(pause_s)
            pause_s *= 1.5

    def _living(self, pod_id: PodId) -> list[socket.socket]:
        return [each for each in self._sockets.get(pod_id, ()) if each.fileno() >= 0]


def _bury(connection: socket.socket) -> None:
    """Put a dead socket in the place of one that nobody has closed: its user finds an end, and the namespace is free."""
    ours, dead = socket.socketpair()
    ours.close()
    try:
        dead.setblocking(False)
        os.dup2(dead.fileno(), connection.fileno(), inheritable=False)
    finally:
        dead.close()
