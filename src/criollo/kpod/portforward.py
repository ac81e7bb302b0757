"""`kpod port-forward`: connections to ports here, carried over one SPDY session to ports of a pod.

A connection is a pair of streams; what goes wrong with it comes on its error stream. When the session ends (a daemon that
restarts, nothing to do for long), the next connection opens another one.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

import click

from criollo.aio.streams import FdReader, FdWriter, copy
from criollo.aio.together import together
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import CriolloError, NotFound, from_os, printable
from criollo.kpod.lookup import everything, find_container, find_pod
from criollo.kpod.outcome import tell
from criollo.kpod.ports import LOCALHOST, Forward, parse_addresses, parse_forward
from criollo.kpod.remote import connected
from criollo.kpod.session import Options, Session, work
from criollo.kpod.signals import Ended, orderly_end
from criollo.kpod.upgrade import target_of
from criollo.streaming.spdy import SpdyConnection
from criollo.streaming.spdy_stream import SpdyStream

PROTOCOL: Final = "portforward.k8s.io"
MAX_CONNECTIONS: Final = 250  # the daemon takes 256 of a session
_BACKLOG: Final = 128
_ERROR_BYTES: Final = 64 << 10


class Listener(NamedTuple):
    """A listening socket, and the pod's port that it stands for."""

    listening: socket.socket
    remote: int


@click.command("port-forward")
@click.option("--address", metavar="ADDRESS[,...]", default="localhost", show_default=True, help="Where to listen.")
@click.argument("pod")
@click.argument("ports", nargs=-1, required=True, metavar="[ADDRESS:][LOCAL:]REMOTE...")
@click.pass_obj
def port_forward(options: Options, pod: str, ports: tuple[str, ...], address: str) -> int:
    """Connect ports here to ports of POD, until an interrupt. ':80' listens at a port that is free."""
    addresses = parse_addresses(address)
    forwards = [parse_forward(text, addresses) for text in ports]

    async def verb(session: Session) -> int:
        pod_id = await _pod_id(session, pod)
        try:
            with orderly_end(), contextlib.ExitStack() as stack:
                listeners = [each for forward in forwards for each in listen(forward, stack)]
                link = Link(session, pod_id, sorted({each.remote for each in forwards}))
                await link.check()
                for each in listeners:
                    click.echo(f"{shown(each.listening)} -> {each.remote}")
                await together(_serve(link, each) for each in listeners)
        except Ended as ended:
            return ended.status
        return 0

    return work(options, verb)


async def _pod_id(session: Session, name: str) -> str:
    known = await everything(session)
    pod = find_pod(known, name)
    if pod is not None:
        return str(pod.id)
    container = find_container(known, name)
    if container is None:
        raise NotFound("pod", name, "kpod pods lists them")
    return str(container.pod_sandbox_id)


def listen(forward: Forward, stack: contextlib.ExitStack) -> list[Listener]:
    """Listen for a forward; the sockets are closed with the stack. Of localhost's two addresses one is enough.

    Raises:
        CriolloError: an address cannot be had.
    """
    found: list[Listener] = []
    refused: CriolloError | None = None
    local = forward.local
    for address in forward.addresses:
        try:
            listening = stack.enter_context(_listening(address, local))
        except OSError as error:
            refused = from_os(error, f"cannot listen at {address} port {local}")
            if address not in LOCALHOST or error.errno == errno.EADDRINUSE:
                raise refused from error
            continue
        local = listening.getsockname()[1]  # the same one at every address
        found.append(Listener(listening, forward.remote))
    if not found and refused is not None:
        raise refused
    return found


def _listening(address: str, port: int) -> socket.socket:
    try:
        [family, kind, protocol, _, where] = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
    except socket.gaierror as error:
        raise CriolloError(f"cannot listen at {address}: it is no address of this node ({error.strerror})") from error
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(where)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def shown(listening: socket.socket) -> str:
    """`127.0.0.1:8080`, `[::1]:8080`."""
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Link:
    """The session that carries the connections; opened when needed, again when it has ended."""

    def __init__(self, session: Session, pod_id: str, ports: Sequence[int]) -> None:
        self._session, self._pod_id, self._ports = session, pod_id, ports
        self.places = asyncio.Semaphore(MAX_CONNECTIONS)  # further ones wait to be accepted
        self._lock = asyncio.Lock()
        self._numbers = itertools.count()
        self._stack = contextlib.AsyncExitStack()
        self._connection: SpdyConnection | None = None

    async def check(self) -> None:
        """Whether the pod can be forwarded to. Raises CriolloError."""
        await self._connected()

    async def open(self, port: int) -> tuple[SpdyStream, SpdyStream]:
        """The data stream and the error stream of a new connection.

        Raises:
            CriolloError: the pod is gone, or the daemon does not answer.
            ConnectionError: the session ended meanwhile.
        """
        connection = await self._connected()
        headers = {"port": str(port), "requestid": str(next(self._numbers))}
        error = await connection.open({"streamtype": "error", **headers})
        try:
            await error.close()
            return await connection.open({"streamtype": "data", **headers}), error
        except BaseException:
            await error.reset()
            raise

    async def close(self) -> None:
        """End the session."""
        await self._stack.aclose()

    async def _connected(self) -> SpdyConnection:
        async with self._lock:
            if self._connection is None or self._connection.ended.is_set():
                await self._stack.aclose()
                request = pb.PortForwardRequest(pod_sandbox_id=self._pod_id, port=self._ports)
                reply = await self._session.client.runtime("PortForward", request)
                path = target_of(reply.url)
                self._connection = await self._stack.enter_async_context(connected(self._session.socket, path, PROTOCOL))
            return self._connection


async def _serve(link: Link, listener: Listener) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await link.places.acquire()
                client, _ = await loop.sock_accept(listener.listening)
                group.create_task(_carry(link, client, listener.remote))
    finally:
        await link.close()


async def _carry(link: Link, client: socket.socket, port: int) -> None:
    """One connection, to its end; what goes wrong is told and ends only this one."""
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            data, error = await link.open(port)
            try:
                await together([_up(client, data), _down(data, error, client)])
            finally:
                await data.reset()
                await error.reset()
        except _Refused as refused:
            tell(f"port {port}: {refused}")
            _hang_up(client)
        except (CriolloError, ConnectionRefusedError) as failure:
            tell(f"port {port}: {failure}")
            _hang_up(client)
        except OSError:
            _hang_up(client)  # the client went away, or the session, which the next connection opens again
        finally:
            link.places.release()


class _Refused(CriolloError):
    """The pod's side says why the connection is over."""


async def _up(client: socket.socket, data: SpdyStream) -> None:
    reader = FdReader(os.dup(client.fileno()))
    try:
        await copy(reader, data)
        await data.close()
    finally:
        reader.close()


async def _down(data: SpdyStream, error: SpdyStream, client: socket.socket) -> None:
    writer = FdWriter(os.dup(client.fileno()))
    try:
        while piece := await _next(data, error):
            await writer.write(piece)
    finally:
        await writer.close()
    if said := await _said(error):
        raise _Refused(said)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)


async def _next(data: SpdyStream, error: SpdyStream) -> bytes:
    """The next bytes. Raises _Refused, where the error stream says why there are none."""
    try:
        return await data.read()
    except ConnectionError:
        if said := await _said(error):
            raise _Refused(said) from None
        raise


async def _said(error: SpdyStream) -> str:
    """What the error stream has; empty when nothing went wrong."""
    found = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await error.read():
            found += piece[: _ERROR_BYTES - len(found)]
    return printable(found.decode("utf-8", "replace").strip())


def _hang_up(client: socket.socket) -> None:
    """Close so that the peer sees an error, not the end of what it wanted."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # on, 0 s: a reset
