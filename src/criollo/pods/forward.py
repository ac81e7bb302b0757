"""PortForward: connections into a pod sandbox's network, made without any process in it.

Only the making of a socket needs the pod's network namespace; the socket stays in it for good, and keeps it alive. So each
is known (`sockets`) until it is closed, and stopping the pod ends them all.
"""

import asyncio
import socket
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.errors import Denied, Invalid, Unavailable, WrongState, from_os
from criollo.linux import namespaces
from criollo.model.pod import Pod, PodState
from criollo.model.session import ForwardSession
from criollo.pods.context import Pods
from criollo.pods.status import find_pod

_CONNECT_LIMIT_S: Final = 10.0
_LOOPBACKS: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def check_forward(pods: Pods, session: ForwardSession) -> Pod:
    """The pod, when a client may forward ports to it.

    Raises:
        Invalid: a port out of range.
        NotFound: no such pod.
        WrongState: it is stopped.
    Source: CRI v1, PortForwardRequest.
    """
    pod = find_pod(pods, session.pod_id)
    _check_ready(pod)
    for port in session.ports:
        _check_port(port)
    return pod


async def dial(pods: Pods, session: ForwardSession, port: int) -> socket.socket:
    """A connection to a port of the pod's loopback, 127.0.0.1 or else ::1; non-blocking.

    The caller owns the socket and closes this very object: once the pod is stopped it is shut down, and whoever still
    holds it then finds the end of it.

    Raises:
        Invalid, NotFound, WrongState: see `check_forward`.
        Denied: the session is not for this port.
        Unavailable: nothing listens there, or it does not answer.
    """
    _check_port(port)
    if session.ports and port not in session.ports:
        raise Denied(f"cannot forward to port {port} of pod {session.pod_id}: the session is for {_listed(session.ports)}")
    pod = check_forward(pods, session)
    refusal: OSError | None = None
    for family, address in _LOOPBACKS:
        try:
            return await _connect(pods, pod, family, (address, port))
        except OSError as error:
            refusal = refusal or error
    assert refusal is not None
    if isinstance(refusal, (ConnectionError, TimeoutError)):
        cause = "nothing listens on it" if isinstance(refusal, ConnectionRefusedError) else "it does not answer"
        raise Unavailable(f"cannot connect to port {port} of pod {pod.id}: {cause}")
    raise from_os(refusal, f"cannot connect to port {port} of pod {pod.id}") from refusal


async def _connect(pods: Pods, pod: Pod, family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    connection = await _socket_in(pod, family)
    try:
        _check_ready(find_pod(pods, pod.id))  # it may be gone meanwhile, and this socket would keep its namespace
        pods.forwards.add(pod.id, connection)
        async with asyncio.timeout(_CONNECT_LIMIT_S):
            await asyncio.get_running_loop().sock_connect(connection, address)
        _check_ready(find_pod(pods, pod.id))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        connection.close()
        raise
    return connection


async def _socket_in(pod: Pod, family: socket.AddressFamily) -> socket.socket:
    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    if pod.host_network:
        return make()
    made: list[socket.socket] = []
    try:
        await threads.fresh(namespaces.run_in, Path(pod.namespaces["net"]), lambda: made.append(make()))
    except BaseException:  # whoever was cancelled meanwhile cannot have it, and it would keep the namespace
        for each in made:
            each.close()
        raise
    return made[0]


def _check_ready(pod: Pod) -> None:
    if pod.state is not PodState.READY or not (pod.host_network or "net" in pod.namespaces):
        raise WrongState("pod sandbox", pod.id, str(pod.state), "READY")


def _check_port(port: int) -> None:
    if not 0 < port <= 0xFFFF:
        raise Invalid("port", port, "1-65535")


def _listed(ports: tuple[int, ...]) -> str:
    return ", ".join(map(str, ports))
