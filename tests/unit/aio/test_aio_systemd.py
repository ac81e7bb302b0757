"""Calls to systemd over a bus that this test plays: it answers, hangs, hangs up, is not there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType, Parser

from criollo.aio.systemd import Systemd
from criollo.errors import HostFailed, TimedOut, Unavailable
from criollo.linux.cgroup import SliceLimits

SENDER = ":1.0"
Play = Callable[["Bus", str, int, tuple[Any, ...]], Awaitable[None]]


class Bus:
    """One connection, as the bus sees it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    def say(self, kind: MessageType, signature: str, body: tuple[Any, ...], **fields: Any) -> None:
        wanted = {
            HeaderFields[name]: value for name, value in {"sender": SENDER, "signature": signature, **fields}.items() if value
        }
        header = Header(Endianness.little, kind, 0, 1, body_length=-1, serial=-1, fields=wanted)
        self.writer.write(Message(header, body).serialise(1))

    def job(self, serial: int, result: str) -> None:
        path = f"/org/freedesktop/systemd1/job/{serial}"
        self.say(MessageType.method_return, "o", (path,), reply_serial=serial)
        self.say(MessageType.signal, "uoss", (serial, path, "x", result), member="JobRemoved")

    def refuse(self, serial: int, name: str) -> None:
        self.say(
            MessageType.error, "s", (f"refused: {name}",), reply_serial=serial, error_name=f"org.freedesktop.systemd1.{name}"
        )


@contextlib.asynccontextmanager
async def bus(path: Path, play: Play) -> AsyncIterator[list[str]]:
    """A bus at `path`; gives the methods that were called, in order."""
    called: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = Parser()
        try:
            await reader.readuntil(b"\r\n")
            writer.write(b"OK 1234\r\n")
            await reader.readuntil(b"BEGIN\r\n")
            while received := await reader.read(4096):
                for message in parser.feed(received):
                    member = message.header.fields[HeaderFields.member]
                    if member not in ("Hello", "AddMatch"):
                        called.append(member)
                        await play(Bus(writer), member, message.header.serial, message.body)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        serving.append(asyncio.get_running_loop().create_task(serve(reader, writer)))

    writers: list[asyncio.StreamWriter] = []
    serving: list[asyncio.Task[None]] = []
    server = await asyncio.start_unix_server(arrived, str(path))
    try:
        yield called
    finally:
        server.close()
        for writer in writers:
            writer.close()
        if serving:  # a task that the loop's end finds before its first step would close nothing
            await asyncio.wait(serving)


async def done(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
    if member == "ResetFailedUnit":
        bus.refuse(serial, "NoSuchUnit")
    else:
        bus.job(serial, "done")


def run(path: Path, play: Play, body: Callable[[Systemd], Awaitable[None]], *, limit_s: float = 60) -> list[str]:
    async def main() -> list[str]:
        async with bus(path, play) as called:
            systemd = Systemd(str(path), limit_s=limit_s)
            try:
                await body(systemd)
            finally:
                systemd.close()
            return called

    return asyncio.run(main())


def test_calls_share_a_connection_and_end_with_their_jobs(tmp_path: Path) -> None:
    async def body(systemd: Systemd) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(systemd.start_slice("a.slice"))
            group.create_task(systemd.start_slice("b.slice"))
        await systemd.start_monitor_scope("m.scope", "a.slice", 1)
        await systemd.drop("m.scope")

    called = run(tmp_path / "bus", done, body)
    assert called == ["StartTransientUnit"] * 3 + ["StopUnit", "ResetFailedUnit"]


def test_a_slice_that_is_known_already_is_started(tmp_path: Path) -> None:
    async def taken(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        if member == "StartTransientUnit":
            bus.refuse(serial, "UnitExists")
        else:
            bus.job(serial, "done")

    called = run(tmp_path / "bus", taken, lambda systemd: systemd.start_slice("a.slice"))
    assert called == ["StartTransientUnit", "StartUnit"]


def test_a_dead_scope_of_the_same_name_makes_room(tmp_path: Path) -> None:
    async def once_taken(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        seen.append(member)
        if seen == ["StartTransientUnit"]:
            bus.refuse(serial, "UnitExists")
        else:
            await done(bus, member, serial, body)

    seen: list[str] = []
    called = run(tmp_path / "bus", once_taken, lambda systemd: systemd.start_monitor_scope("m.scope", "a.slice", 1))
    assert called == ["StartTransientUnit", "StopUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_a_scope_that_holds_the_process_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up_then_taken(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        seen.append(member)
        if len(seen) == 1:
            bus.writer.close()
        else:
            bus.refuse(serial, "UnitExists")

    seen: list[str] = []
    monkeypatch.setattr("criollo.aio.systemd.of_process", lambda pid: {"": "/a.slice/m.scope"})
    called = run(tmp_path / "bus", hang_up_then_taken, lambda systemd: systemd.start_monitor_scope("m.scope", "a.slice", 1))
    assert called == ["StartTransientUnit"] * 2


def test_what_is_gone_is_dropped(tmp_path: Path) -> None:
    async def gone(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        bus.refuse(serial, "NoSuchUnit")

    assert run(tmp_path / "bus", gone, lambda systemd: systemd.drop("m.scope")) == ["StopUnit"]


@pytest.mark.parametrize("result", ["failed", "timeout", "canceled"])
def test_a_failed_job_is_an_error_with_the_units_name(tmp_path: Path, result: str) -> None:
    async def fail(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        bus.job(serial, result)

    with pytest.raises(HostFailed, match=rf"cannot make slice a\.slice.*{result}"):
        run(tmp_path / "bus", fail, lambda systemd: systemd.start_slice("a.slice"))


def test_a_refusal_has_systemds_words(tmp_path: Path) -> None:
    async def refuse(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        bus.refuse(serial, "AccessDenied")

    with pytest.raises(HostFailed, match=r"cannot stop m\.scope: systemd refused: refused: AccessDenied"):
        run(tmp_path / "bus", refuse, lambda systemd: systemd.drop("m.scope"))


def test_a_bus_that_hung_up_is_called_again(tmp_path: Path) -> None:
    async def hang_up_once(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        seen.append(member)
        if len(seen) in (1, 3):
            bus.writer.close()
        else:
            await done(bus, member, serial, body)

    async def body(systemd: Systemd) -> None:
        await systemd.start_slice("a.slice")
        await systemd.start_slice("b.slice")

    seen: list[str] = []
    assert run(tmp_path / "bus", hang_up_once, body) == ["StartTransientUnit"] * 4


def test_a_bus_that_always_hangs_up_is_an_error(tmp_path: Path) -> None:
    async def hang_up(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        bus.writer.close()

    with pytest.raises(Unavailable, match="hung up"):
        run(tmp_path / "bus", hang_up, lambda systemd: systemd.start_slice("a.slice"))


def test_limits_of_a_slice_are_set_or_refused(tmp_path: Path) -> None:
    async def answer(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        if body[0] == "gone.slice":
            bus.refuse(serial, "NoSuchUnit")
        else:
            bus.say(MessageType.method_return, "", (), reply_serial=serial)

    limits = SliceLimits(1 << 20, -1, 100_000, 0)
    assert run(tmp_path / "bus", answer, lambda systemd: systemd.set_limits("a.slice", limits)) == ["SetUnitProperties"]
    with pytest.raises(HostFailed, match=r"cannot set the limits of gone\.slice"):
        run(tmp_path / "bus2", answer, lambda systemd: systemd.set_limits("gone.slice", limits))


def test_silence_ends_at_the_limit(tmp_path: Path) -> None:
    async def silent(bus: Bus, member: str, serial: int, body: tuple[Any, ...]) -> None:
        pass

    with pytest.raises(TimedOut, match=r"cannot make slice a\.slice: systemd gave no answer within 0\.1 s"):
        run(tmp_path / "bus", silent, lambda systemd: systemd.start_slice("a.slice"), limit_s=0.1)


def test_no_bus_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    async def main() -> None:
        await Systemd(str(tmp_path / "absent")).start_slice("a.slice")

    with pytest.raises(Unavailable, match="No such file or directory; start dbus, or set cgroup_manager to cgroupfs"):
        asyncio.run(main())
