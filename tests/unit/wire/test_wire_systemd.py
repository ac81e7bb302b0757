"""The conversation with systemd, played from both sides; and what no systemd would say."""

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney.low_level import Endianness, Header, HeaderFields, Message, MessageType, Parser

from criollo.linux.cgroup import SliceLimits
from criollo.wire import systemd
from criollo.wire.systemd import BusSession, CallEnded, Garbled

SYSTEMD, STRANGER = ":1.0", ":1.66"
JOB = "/org/freedesktop/systemd1/job/7"


def message(kind: MessageType, signature: str, body: tuple[Any, ...], **fields: Any) -> bytes:
    """What the bus passes on; the sender is systemd unless told otherwise."""
    wanted = {"sender": SYSTEMD, "signature": signature, **fields}
    header_fields = {HeaderFields[name]: value for name, value in wanted.items() if value}
    header = Header(Endianness.little, kind, 0, 1, body_length=-1, serial=-1, fields=header_fields)
    return bytes(Message(header, body).serialise(1))


def returned(ticket: int, signature: str = "", *body: Any, sender: str = SYSTEMD) -> bytes:
    return message(MessageType.method_return, signature, body, reply_serial=ticket, sender=sender)


def failed(ticket: int, name: str, text: str) -> bytes:
    return message(MessageType.error, "s", (text,), reply_serial=ticket, error_name=name)


def removed(job: str, result: str, sender: str = SYSTEMD) -> bytes:
    fields = {"path": "/org/freedesktop/systemd1", "interface": "org.freedesktop.systemd1.Manager", "member": "JobRemoved"}
    return message(MessageType.signal, "uoss", (7, job, "a.slice", result), sender=sender, **fields)


def greeted() -> BusSession:
    session = BusSession()
    assert session.greeting().startswith(b"\0AUTH EXTERNAL ")
    answer, ended = session.receive(b"OK 1234\r\n")
    assert answer.startswith(b"BEGIN\r\n")
    assert [each.header.fields[HeaderFields.member] for each in Parser().feed(answer[7:])] == ["Hello", "AddMatch"]
    assert ended == []
    return session


def test_a_call_ends_with_its_job() -> None:
    session = greeted()
    ticket, sent = session.call(systemd.start_slice("kubepods-pod1.slice"))
    (asked,) = Parser().feed(sent)
    assert asked.header.fields[HeaderFields.member] == "StartTransientUnit"
    name, mode, properties, _ = asked.body
    assert (name, mode) == ("kubepods-pod1.slice", "replace")
    assert dict(properties)["Wants"] == ("as", ["kubepods.slice"])
    assert session.receive(returned(ticket, "o", JOB)) == (b"", [])
    assert session.receive(removed("/another", "done")) == (b"", [])
    assert session.receive(removed(JOB, "done")) == (b"", [CallEnded(ticket, "", "")])


def test_a_job_that_fails_is_told() -> None:
    session = greeted()
    ticket, _ = session.call(systemd.stop("a.scope"))
    assert session.receive(returned(ticket, "o", JOB) + removed(JOB, "timeout"))[1] == [
        CallEnded(ticket, "job:timeout", "timeout")
    ]


def test_only_systemd_ends_a_job() -> None:
    session = greeted()
    ticket, _ = session.call(systemd.stop("a.scope"))
    assert session.receive(returned(ticket, "o", JOB) + removed(JOB, "done", sender=STRANGER))[1] == []
    assert session.receive(removed(JOB, "done"))[1] == [CallEnded(ticket, "", "")]


def test_a_refusal_ends_a_call() -> None:
    session = greeted()
    ticket, _ = session.call(systemd.stop("a.scope"))
    assert session.receive(failed(ticket, systemd.NO_SUCH_UNIT, "not loaded"))[1] == [
        CallEnded(ticket, systemd.NO_SUCH_UNIT, "not loaded")
    ]


def test_a_call_without_a_job_ends_with_its_reply() -> None:
    session = greeted()
    ticket, _ = session.call(systemd.reset_failed("a.scope"))
    assert session.receive(returned(ticket))[1] == [CallEnded(ticket, "", "")]


def test_calls_wait_until_the_bus_lets_us_in() -> None:
    session = BusSession()
    session.greeting()
    ticket, sent = session.call(systemd.stop("a.scope"))
    assert sent == b""
    answer, _ = session.receive(b"OK 12")
    assert answer == b""
    answer, _ = session.receive(b"34\r")
    answer, _ = session.receive(b"\n")
    assert [each.header.fields[HeaderFields.member] for each in Parser().feed(answer[7:])] == ["Hello", "AddMatch", "StopUnit"]
    assert session.receive(failed(ticket, "x.y", ""))[1] == [CallEnded(ticket, "x.y", "")]


def test_a_monitors_scope_survives_the_nodes_end_until_its_container_does() -> None:
    call = systemd.start_monitor_scope("crio-conmon-c1.scope", "system.slice", 42)
    properties = dict(call.arguments[2])
    assert properties["PIDs"] == ("au", [42])
    assert properties["KillSignal"] == ("i", 13)
    assert properties["CollectMode"] == ("s", "inactive-or-failed")


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        (SliceLimits(-1, -1, 100_000, 0), {"MemoryMax": (1 << 64) - 1, "CPUQuotaPerSecUSec": (1 << 64) - 1}),
        (SliceLimits(1 << 20, 50_000, 100_000, 7), {"MemoryMax": 1 << 20, "CPUQuotaPerSecUSec": 500_000, "CPUWeight": 7}),
        (SliceLimits(0, 0, 100_000, -1, 0), {"CPUWeight": (1 << 64) - 1, "MemorySwapMax": 0}),
        (SliceLimits(0, 0, 100_000, 0, -1), {"MemorySwapMax": (1 << 64) - 1}),
    ],
    ids=["none", "all", "usual weight and no swap", "all swap"],
)
def test_limits_of_a_slice_as_systemd_says_them(limits: SliceLimits, shown: dict[str, int]) -> None:
    call = systemd.set_limits("a.slice", limits)
    assert call.arguments[:2] == ("a.slice", True)
    assert {name: value for name, (_, value) in call.arguments[2]} == {**shown, "CPUQuotaPeriodUSec": 100_000}


@pytest.mark.parametrize(
    "received",
    [
        b"REJECTED EXTERNAL\r\n",
        b"x" * 9000,
        b"OK 1\r\n" + b"l\x02\0\1" + struct.pack("<III", 1 << 21, 1, 0),
        b"OK 1\r\n" + b"\xff" * 64,
    ],
    ids=["refused", "endless line", "huge message", "no message"],
)
def test_what_is_no_bus_is_told(received: bytes) -> None:
    session = BusSession()
    session.greeting()
    with pytest.raises(Garbled):
        session.receive(received)


@given(st.integers(0, 400), st.integers(0, 400))
def test_bytes_may_come_in_any_pieces(one: int, two: int) -> None:
    session = greeted()
    ticket, _ = session.call(systemd.stop("a.scope"))
    stream = returned(ticket, "o", JOB) + removed(JOB, "done")
    cuts = sorted((min(one, len(stream)), min(two, len(stream))))
    ended = []
    for piece in (stream[: cuts[0]], stream[cuts[0] : cuts[1]], stream[cuts[1] :]):
        ended += session.receive(piece)[1]
    assert ended == [CallEnded(ticket, "", "")]


@given(st.binary(max_size=200), st.integers(0, 200))
def test_junk_is_an_error_or_waits_for_more(junk: bytes, at: int) -> None:
    session = greeted()
    ticket, _ = session.call(systemd.stop("a.scope"))
    whole = returned(ticket, "o", JOB)
    with contextlib.suppress(Garbled):
        session.receive(whole[:at] + junk + whole[at:])
