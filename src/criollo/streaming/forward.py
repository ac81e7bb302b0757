"""Port-forward: connections of a client, each to a port inside a pod."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Final

from criollo.aio.streams import CHUNK_BYTES, Reader, copy
from criollo.aio.together import first, together
from criollo.errors import CriolloError
from criollo.model.session import ForwardSession
from criollo.pods.context import Pods
from criollo.pods.forward import dial
from criollo.streaming.idle import Idle
from criollo.streaming.session import Pair
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_LINGER_S: Final = 60.0  # for a client to end its side after the pod's; old kubectl never does, and keeps the connection


async def run_forward(pods: Pods, session: ForwardSession, pairs: AsyncIterator[Pair], *, idle: Idle) -> None:
    """Serve every connection that the client asks for, at once; one that fails is told to the client and harms no other."""
    try:
        async with asyncio.TaskGroup() as group:
            async for pair in pairs:
                group.create_task(_forward(pods, session, idle.watch_pair(pair)))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _forward(pods: Pods, session: ForwardSession, pair: Pair) -> None:
    failure, is_whole = "", False
    try:
        with await dial(pods, session, pair.port) as sock:
            is_whole = await _both_ways(sock, pair)
    except CriolloError as error:
        failure = str(error)
    except OSError as error:  # either end is gone: the connection inside the pod, or the client
        failure = f"cannot forward port {pair.port} of pod {session.pod_id} any more: {error.strerror or error}"
    with contextlib.suppress(ConnectionError):
        if failure:
            log.debug("forward ended", pod=session.pod_id, port=pair.port, cause=failure)
            await pair.error.write(failure.encode())
        await pair.error.close()
    with contextlib.suppress(ConnectionError):  # whatever became of the error stream: this one must not stay open
        await (pair.data.close() if is_whole else pair.data.reset())


async def _both_ways(sock: socket.socket, pair: Pair) -> bool:
    """Copy until both sides have said their end; the end of one leaves the other open. False if the client's never came."""
    ends = _SocketEnds(sock)
    answered = asyncio.Event()

    async def inwards() -> None:
        try:
            await copy(pair.data, ends)
        except OSError:
            if ends.listens:
                raise
            await first(answered.wait(), _passed_over(pair.data))  # what the pod has said is still passed on
            raise
        await ends.close()

    async def outwards() -> None:
        await copy(ends, pair.data)
        await pair.data.close()
        await pair.error.close()  # kubectl takes this for the end, and waits for it
        lingering.reschedule(asyncio.get_running_loop().time() + _LINGER_S)
        answered.set()

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as lingering:
            await together([inwards(), outwards()])
        return True
    return False


async def _passed_over(source: Reader) -> None:
    """Read what nobody takes, so that it holds up no other; never returns."""
    while await source.read():
        pass
    await asyncio.get_running_loop().create_future()


class _SocketEnds:
    """A connected non-blocking socket as a Reader and a Writer; closed by its owner. `listens`: it took all so far."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._loop = sock, asyncio.get_running_loop()
        self.listens = True

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self._sock, CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError:
            self.listens = False
            raise

    async def close(self) -> None:
        with contextlib.suppress(OSError):  # the pod has closed already
            self._sock.shutdown(socket.SHUT_WR)
