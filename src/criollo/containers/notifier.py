"""The seccomp notifier: hears of the calls that a container's filter refuses, tells of them, may end the container.

    runtime ──connects──▶ <runroot>/seccomp/<id> ──listener (descriptor)──▶ daemon: log line, counter, answer with the errno

Asked for by the pod's annotation `seccomp-notifier-action.crio.io`: `stop` ends the container five seconds after the last
refused call, anything else only tells. Every exec brings a listener of its own.

The daemon is the only holder of listeners. When it dies, the kernel answers ENOSYS to the calls that wait and to all further
ones, so nobody hangs; a daemon that starts again hears of later execs, and no more of the processes from before. While the
daemon is stopped by a debugger, refused calls wait for it.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.aio.streams import readable
from criollo.aio.together import first
from criollo.containers.context import Containers
from criollo.containers.seccomp_asked import STOP
from criollo.containers.stop import stop
from criollo.errors import CriolloError, Invalid, Unsupported, explain
from criollo.linux import seccomp_notify as kernel
from criollo.linux.files import make_directory
from criollo.model.container import Container, ContainerState
from criollo.security.seccomp_listener import arrived
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

REASON: Final = "seccomp killed"

_SUN_PATH: Final = 108  # unix(7)
_HAND_OVER_LIMIT_S: Final = 10
_EACH: Final = 100  # refusals that are told of one by one; after that every thousandth, and each waits a little
_SLOW_S: Final = 0.01


async def listen(containers: Containers, container: Container) -> None:
    """Hear of a container's refused calls until it has ended; before the runtime creates it, and again after a restart.

    Raises:
        Unsupported: the socket's path is too long.
    """
    path = containers.places.notifier(container.id)
    if len(os.fsencode(path)) >= _SUN_PATH:
        raise Unsupported(f"cannot listen for seccomp notifications at {path}: the path is too long; choose a shorter runroot")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with explain(f"listen for seccomp notifications of container {container.id}"):
            await threads.files(_bind, listener, str(path))
    except BaseException:
        listener.close()
        raise
    notifier = _Notifier(containers, container)
    containers.notifiers[container.id] = notifier.over.set
    containers.tasks.start(notifier.run(listener), name=f"seccomp notifier {container.id}")


def _bind(listener: socket.socket, path: str) -> None:
    make_directory(os.path.dirname(path), 0o700)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of a daemon before us
    listener.bind(path)
    listener.listen(16)


class _Notifier:
    """What is known of one container's refused calls."""

    def __init__(self, containers: Containers, container: Container) -> None:
        self._containers, self._id, self._name = containers, container.id, container.name
        self._stops = container.notifier == STOP
        self._used: Counter[str] = Counter()
        self._some = asyncio.Event()
        self.over = asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Take listeners from the runtime until `over` is set."""
        with listener:
            await first(self._serve(listener), self.over.wait())

    async def _serve(self, listener: socket.socket) -> None:
        async with asyncio.TaskGroup() as group:
            if self._stops:
                group.create_task(self._stop_when_quiet())
            while True:
                await readable(listener.fileno())
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    log.warning("cannot take a seccomp listener", container=self._id, error=error)
                    await asyncio.sleep(1)  # out of descriptors, most likely
                    continue
                group.create_task(self._hear(connection))

    async def _hear(self, connection: socket.socket) -> None:
        fds: list[int] = []
        try:
            with connection:
                connection.setblocking(False)
                async with asyncio.timeout(_HAND_OVER_LIMIT_S):
                    await readable(connection.fileno())
                fds, said = kernel.receive(connection)
            at, codes = arrived(said, len(fds))
            await self._answer(fds[at], codes)
        except (OSError, TimeoutError, Invalid) as error:
            log.warning("seccomp listener cannot be used", container=self._id, error=error)
        finally:
            kernel.close(fds)

    async def _answer(self, listener: int, codes: Mapping[str, int]) -> None:
        """Answer calls until nobody is left who could make one."""
        while True:
            await readable(listener)
            try:
                call = kernel.take(listener)
            except EOFError:
                return
            if call is None:
                continue
            self._count(call.name)
            if self._used.total() > _EACH:
                await asyncio.sleep(_SLOW_S)  # who calls in a loop waits, not we
            kernel.refuse(listener, call, codes.get(call.name, errno.EPERM))

    def _count(self, name: str) -> None:
        self._used[name] += 1
        self._some.set()
        self._containers.count_blocked(self._name, name)
        count = self._used[name]
        if count <= _EACH or count % 1000 == 0:
            message = f"Seccomp blocked syscall '{name}' in container {self._id}"  # CRI-O's words: tools look for them
            log.info(message, name=self._name, count=count)

    async def _stop_when_quiet(self) -> None:
        """End the container once it has made no refused call for a while."""
        quiet_s = self._containers.notifier_quiet_s
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            while True:
                self._some.clear()
                async with asyncio.timeout(quiet_s):
                    await self._some.wait()
        log.info("Seccomp notifier timer expired, stopping container", container=self._id)
        self._say_why()
        try:
            await stop(self._containers, self._id, grace_s=0)
        except CriolloError as error:
            log.warning("cannot stop a container that used forbidden system calls", container=self._id, error=error)

    def _say_why(self) -> None:
        rows = self._containers.state.containers
        current = rows.get(self._id)
        if current is not None and current.state is ContainerState.RUNNING:
            used = ", ".join(f"{name} ({count}x)" for name, count in sorted(self._used.items()))
            rows.keep(msgspec.structs.replace(current, reason=REASON, message=f"Used forbidden syscalls: {used}"))
