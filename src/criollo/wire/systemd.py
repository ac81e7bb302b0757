"""What we say to systemd over D-Bus, and what it answers: units that are started, stopped, forgotten. Bytes in, events out.

    us ──▶ AUTH EXTERNAL, BEGIN, Hello, AddMatch(JobRemoved)         once per connection
    us ──▶ StartTransientUnit, StopUnit, …      ◀── reply: the job's path      ◀── later JobRemoved(path, result)

A call has ended when its job has, or with its reply where there is no job. Any user of the node may send us a signal, so
only what comes from the sender of the reply ends a job.
Source: D-Bus specification 0.43; org.freedesktop.systemd1(5); systemd.scope(5), systemd.slice(5), systemd.kill(5).
"""

import signal
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from jeepney.auth import BEGIN, AuthenticationError, Authenticator
from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType, Parser

from criollo.linux.cgroup import SliceLimits, parent_slice

MAX_MESSAGE: Final = 1 << 20  # systemd's longest one to us has some hundred bytes
_MAX_LINE: Final = 8192
_BUS: Final = ("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_SYSTEMD: Final = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
_MATCH: Final = f"type='signal',sender='{_SYSTEMD[1]}',interface='{_SYSTEMD[2]}',member='JobRemoved',path='{_SYSTEMD[0]}'"
NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"


class Garbled(Exception):
    """The other side does not speak D-Bus as we know it; the connection is of no more use."""


class BusCall(NamedTuple):
    """A method of systemd with its arguments; `has_job` when the reply names a job to wait for."""

    method: str
    signature: str
    arguments: tuple[Any, ...]
    has_job: bool = False


class CallEnded(NamedTuple):
    """A call has ended. `error` is empty when it did what was asked, else the name of a D-Bus error, or `job:` and a result."""

    ticket: int
    error: str
    message: str


def start_slice(name: str) -> BusCall:
    """Make a slice for pods, with everything counted that a pod is asked for."""
    properties: list[tuple[str, tuple[str, Any]]] = [
        ("Description", ("s", "Pods of Kubernetes")),
        ("DefaultDependencies", ("b", False)),
        *((f"{what}Accounting", ("b", True)) for what in ("CPU", "Memory", "Tasks", "IO")),
        ("CPUWeight", ("t", 100)),  # the kernel's own default: said aloud, it switches the controller on
    ]
    if (parent := parent_slice(name)) != "-.slice":
        properties.append(("Wants", ("as", [parent])))
    return _start(name, properties)


def start_monitor_scope(name: str, slice_name: str, pid: int) -> BusCall:
    """Put a monitor into a scope of its own.

    When the node goes down systemd stops all scopes at once. A monitor survives SIGPIPE: it shall see the end of its
    container, and write it down.
    """
    return _start(
        name,
        [
            ("Description", ("s", "Monitor of a container")),
            ("Slice", ("s", slice_name)),
            ("PIDs", ("au", [pid])),
            ("Delegate", ("b", True)),
            ("DefaultDependencies", ("b", False)),
            ("KillSignal", ("i", int(signal.SIGPIPE))),
            ("CollectMode", ("s", "inactive-or-failed")),
        ],
    )


def start(name: str) -> BusCall:
    """Start a unit that systemd knows; nothing when it runs."""
    return BusCall("StartUnit", "ss", (name, "replace"), has_job=True)


def stop(name: str) -> BusCall:
    """Stop a unit and all that is in it."""
    return BusCall("StopUnit", "ss", (name, "replace"), has_job=True)


def reset_failed(name: str) -> BusCall:
    """Let systemd forget a unit that failed."""
    return BusCall("ResetFailedUnit", "s", (name,))


def set_limits(name: str, limits: SliceLimits) -> BusCall:
    """Have systemd hold a unit to limits: what is only written into its cgroup is undone when systemd reads its units again."""
    no_limit = (1 << 64) - 1  # of a weight: the usual one
    quota = limits.cpu_quota_us
    values = {
        "MemoryMax": limits.memory_bytes,
        "CPUQuotaPerSecUSec": quota if quota <= 0 else max(1, quota * 1_000_000 // limits.cpu_period_us),
        "CPUQuotaPeriodUSec": limits.cpu_period_us,
        "CPUWeight": limits.cpu_weight,
    }
    properties: list[tuple[str, tuple[str, Any]]] = [
        (key, ("t", no_limit if value < 0 else value)) for key, value in values.items() if value
    ]
    if limits.swap_bytes is not None:
        properties.append(("MemorySwapMax", ("t", no_limit if limits.swap_bytes < 0 else limits.swap_bytes)))
    return BusCall("SetUnitProperties", "sba(sv)", (name, True, properties))


def _start(name: str, properties: list[tuple[str, tuple[str, Any]]]) -> BusCall:
    return BusCall("StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "replace", properties, []), has_job=True)


class BusSession:
    """Our side of one connection. Calls may be made at once: they are kept back until the bus has let us in."""

    def __init__(self) -> None:
        self._auth: Authenticator | None = Authenticator()
        self._line = b""
        self._parser = Parser()
        self._serial = 0
        self._kept_back = b""
        self._waiting: dict[int, bool] = {}  # by serial: whether a job follows
        self._jobs: dict[tuple[str, str], int] = {}  # (sender, path) to ticket

    def greeting(self) -> bytes:
        """The first bytes to send."""
        hello = self._message(_BUS, BusCall("Hello", "", ()))
        self._kept_back = hello + self._message(_BUS, BusCall("AddMatch", "s", (_MATCH,)))
        assert self._auth is not None
        return bytes(self._auth.data_to_send() or b"")

    def call(self, call: BusCall) -> tuple[int, bytes]:
        """A ticket, which the end of the call will name, and what to send now."""
        content = self._message(_SYSTEMD, call)
        self._waiting[self._serial] = call.has_job
        if self._auth is None:
            return self._serial, content
        self._kept_back += content
        return self._serial, b""

    def receive(self, received: bytes) -> tuple[bytes, list[CallEnded]]:
        """What to send now, and which calls have ended.

        Raises:
            Garbled: refused, or no D-Bus.
        """
        answer = b""
        if self._auth is not None:
            answer, received = self._authenticate(received)
        try:
            self._parser.add_data(received)
            return answer, [ended for message in self._messages() for ended in self._understand(message)]
        except Garbled:
            raise
        except (ValueError, KeyError, IndexError, AssertionError, TypeError, struct.error, RecursionError) as error:
            raise Garbled(f"no message of D-Bus: {type(error).__name__}: {error}") from error

    def _authenticate(self, received: bytes) -> tuple[bytes, bytes]:
        """What to answer, and what of the bytes is left for the parser."""
        assert self._auth is not None
        line, end, rest = (self._line + received).partition(b"\r\n")
        if not end:
            self._line = line
            if len(line) > _MAX_LINE:
                raise Garbled("the bus lets us in with a line without an end")
            return b"", b""
        try:
            self._auth.feed(line + end)
        except AuthenticationError as error:
            raise Garbled(f"the bus does not let us in: {bytes(error.data)[:200]!r}") from error
        self._auth = None
        return BEGIN + self._kept_back, rest

    def _messages(self) -> Iterator[Message]:
        while True:
            size = self._parser.next_msg_size
            if size is None and self._parser.buf.bytes_buffered >= 16:
                size = self._parser.bytes_desired() + self._parser.buf.bytes_buffered
            if size is not None and size > MAX_MESSAGE:
                raise Garbled(f"a message of {size} bytes")
            message = self._parser.get_next_message()
            if message is None:
                return
            yield message

    def _understand(self, message: Message) -> Iterator[CallEnded]:
        fields = message.header.fields
        kind, sender = message.header.message_type, str(fields.get(HeaderFields.sender, ""))
        serial = fields.get(HeaderFields.reply_serial, 0)
        if kind is MessageType.error and serial in self._waiting:
            del self._waiting[serial]
            yield CallEnded(serial, str(fields.get(HeaderFields.error_name, "")) or "no name", _first_text(message.body))
        elif kind is MessageType.method_return and serial in self._waiting:
            if self._waiting.pop(serial):
                self._jobs[sender, str(message.body[0])] = serial
            else:
                yield CallEnded(serial, "", "")
        elif kind is MessageType.signal and fields.get(HeaderFields.member) == "JobRemoved" and len(message.body) == 4:
            ticket = self._jobs.pop((sender, str(message.body[1])), None)
            if ticket is not None:
                result = str(message.body[3])
                yield CallEnded(ticket, "", "") if result in ("done", "skipped") else CallEnded(ticket, f"job:{result}", result)

    def _message(self, to: tuple[str, str, str], call: BusCall) -> bytes:
        self._serial += 1
        path, destination, interface = to
        fields = {
            HeaderFields.path: path,
            HeaderFields.destination: destination,
            HeaderFields.interface: interface,
            HeaderFields.member: call.method,
        }
        if call.signature:
            fields[HeaderFields.signature] = call.signature
        # Without flags: a bus that starts only now, by our connection, keeps the message until systemd has joined it.
        header = Header(Endianness.little, MessageType.method_call, 0, 1, body_length=-1, serial=-1, fields=fields)
        return bytes(Message(header, call.arguments).serialise(self._serial))


def _first_text(body: tuple[Any, ...]) -> str:
    return body[0] if body and isinstance(body[0], str) else ""
