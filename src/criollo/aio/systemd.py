"""systemd, over the system bus: slices of pods and scopes of monitors are made and taken away.

One connection, opened with the first call and again after it was lost; a call that was cut is repeated once, since each may
be. The codec is loaded then, too: a node whose driver is cgroupfs never has it.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from criollo.errors import HostFailed, TimedOut, Unavailable
from criollo.linux.cgroup import SliceLimits, of_process

if TYPE_CHECKING:
    from criollo.wire.systemd import BusCall, BusSession, CallEnded

SYSTEM_BUS: Final = "/run/dbus/system_bus_socket"
_NO_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
_TAKEN: Final = "org.freedesktop.systemd1.UnitExists"


class Systemd:
    """What we ask of systemd. Each call has `limit_s` seconds; close when nobody calls any more."""

    def __init__(self, address: str = SYSTEM_BUS, *, limit_s: float = 30.0) -> None:
        self._address, self._limit_s = address, limit_s
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()

    async def start_slice(self, name: str) -> None:
        """Have a slice with its cgroup; one that is there is success.

        Raises:
            Unavailable, TimedOut, HostFailed: systemd cannot be reached, does not answer, refuses.
        """
        from criollo.wire import systemd as words

        ended = await self._call(words.start_slice(name), f"make slice {name}")
        if ended.error == _TAKEN:  # by somebody at this moment, or by a file of the administrator
            ended = await self._call(words.start(name), f"start slice {name}")
        if ended.error:
            raise _refused(f"make slice {name}", ended)

    async def start_monitor_scope(self, name: str, slice_name: str, pid: int) -> None:
        """Move a process into a new scope; a dead one of that name is taken away first.

        Raises:
            Unavailable, TimedOut, HostFailed: as for `start_slice`.
        """
        from criollo.wire import systemd as words

        what, call = f"make scope {name} in {slice_name}", words.start_monitor_scope(name, slice_name, pid)
        ended = await self._call(call, what)
        if ended.error == _TAKEN:
            if any(path.endswith(f"/{name}") for path in of_process(pid).values()):
                return  # by the first of two calls: the bus hung up before it had told us
            await self.drop(name)
            ended = await self._call(call, what)
        if ended.error:
            raise _refused(what, ended)

    async def drop(self, name: str) -> None:
        """Stop a unit with all that is in it, and have systemd forget that it failed; absence is success.

        Raises:
            Unavailable, TimedOut, HostFailed: as for `start_slice`.
        """
        from criollo.wire import systemd as words

        for call, what in ((words.stop(name), f"stop {name}"), (words.reset_failed(name), f"reset {name}")):
            ended = await self._call(call, what)
            if ended.error == _NO_UNIT:
                return
            if ended.error and not (ended.error.startswith("job:") and call.method == "StopUnit"):
                raise _refused(what, ended)

    async def set_limits(self, name: str, limits: SliceLimits) -> None:
        """Hold a slice to limits until it goes.

        Raises:
            Unavailable, TimedOut, HostFailed: as for `start_slice`.
        """
        from criollo.wire import systemd as words

        ended = await self._call(words.set_limits(name, limits), f"set the limits of {name}")
        if ended.error:
            raise _refused(f"set the limits of {name}", ended)

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.hang_up("we are closing")

    async def _call(self, call: "BusCall", what: str) -> "CallEnded":
        try:
            async with asyncio.timeout(self._limit_s):
                try:
                    return await (await self._connected()).call(call)
                except _LostError:
                    return await (await self._connected()).call(call)
        except TimeoutError:  # an OSError, too
            raise TimedOut(
                f"cannot {what}: systemd gave no answer within {self._limit_s:g} s; `systemctl list-jobs` has its queue"
            ) from None
        except _LostError as error:
            raise _unreachable(what, self._address, str(error)) from error
        except OSError as error:
            raise _unreachable(what, self._address, error.strerror or str(error)) from error

    async def _connected(self) -> "_Connection":
        async with self._opening:
            if self._connection is None or self._connection.is_lost:
                from criollo.wire.systemd import BusSession  # 1.7 MiB and 12 ms

                loop = asyncio.get_running_loop()
                _, self._connection = await loop.create_unix_connection(lambda: _Connection(BusSession()), self._address)
            return self._connection


class _LostError(Exception):
    """The connection ended before its calls did."""


class _Connection(asyncio.Protocol):
    """One connection to the bus: who waits for which call."""

    def __init__(self, session: "BusSession") -> None:
        self._session = session
        self._waiters: dict[int, asyncio.Future[CallEnded]] = {}
        self._transport: asyncio.Transport | None = None
        self.is_lost = False

    async def call(self, call: "BusCall") -> "CallEnded":
        if self.is_lost or self._transport is None:
            raise _LostError("the connection was lost")
        ticket, content = self._session.call(call)
        waiter = self._waiters[ticket] = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(content)
            ended: CallEnded = await waiter
            return ended
        finally:
            del self._waiters[ticket]

    def hang_up(self, why: str) -> None:
        self.is_lost = True
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(_LostError(why))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._session.greeting())

    def data_received(self, data: bytes) -> None:
        from criollo.wire.systemd import Garbled

        try:
            answer, ended = self._session.receive(data)
        except Garbled as error:
            self.hang_up(str(error))
            return
        if answer and self._transport is not None:
            self._transport.write(answer)
        for each in ended:
            waiter = self._waiters.get(each.ticket)
            if waiter is not None and not waiter.done():
                waiter.set_result(each)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hang_up(str(exc) if exc else "the bus hung up")


def _unreachable(what: str, address: str, cause: str) -> Unavailable:
    return Unavailable(
        f"cannot {what}: systemd is not reached by D-Bus ({address}): {cause}; start dbus, or set cgroup_manager to cgroupfs"
    )


def _refused(what: str, ended: "CallEnded") -> HostFailed:
    said = ended.message or ended.error
    if ended.error.startswith("job:"):
        return HostFailed(f"cannot {what}: systemd's job ended with {said!r}; the journal of systemd has the cause")
    return HostFailed(f"cannot {what}: systemd refused: {said}")
