"""Exec, Attach and PortForward requests as sessions, or an error that names the field."""

import contextlib
from typing import Any

import pytest
from cri_random import messages
from hypothesis import HealthCheck, given, settings

from criollo.cri import read_session
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.session import AttachSession, ExecSession, ForwardSession

ID = "c" * 64


def test_exec_is_read_whole() -> None:
    request = pb.ExecRequest(container_id=ID, cmd=["sh", "-c", "x\ny"], tty=True, stdin=True, stdout=True)
    assert read_session.exec_session(request) == ExecSession(
        container_id=ID, argv=("sh", "-c", "x\ny"), tty=True, stdin=True, stdout=True
    )


def test_attach_is_read_whole() -> None:
    request = pb.AttachRequest(container_id=ID, stdin=True, stdout=True, stderr=True)
    assert read_session.attach_session(request) == AttachSession(container_id=ID, stdin=True, stdout=True, stderr=True)


def test_forward_is_read_whole() -> None:
    request = pb.PortForwardRequest(pod_sandbox_id=ID, port=[80, 65535])
    assert read_session.forward_session(request) == ForwardSession(pod_id=ID, ports=(80, 65535))
    assert read_session.forward_session(pb.PortForwardRequest(pod_sandbox_id=ID)).ports == ()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cmd": []}, "cmd"),
        ({"cmd": [""]}, "cmd"),
        ({"cmd": ["a\0b"]}, "cmd[0]"),
        ({"container_id": ""}, "container_id"),
        ({"container_id": "a\nb"}, "container_id"),
        ({"stdout": False}, "stdin, stdout, stderr"),
        ({"tty": True, "stderr": True}, "stderr"),
    ],
)
def test_exec_that_cannot_be_is_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_session.exec_session(pb.ExecRequest(**{"container_id": ID, "cmd": ["true"], "stdout": True, **fields}))
    assert refused.value.field == field


@pytest.mark.parametrize("fields", [{}, {"tty": True, "stdout": True, "stderr": True}])
def test_attach_that_cannot_be_is_refused(fields: dict[str, bool]) -> None:
    with pytest.raises(Invalid):
        read_session.attach_session(pb.AttachRequest(container_id=ID, **fields))


@pytest.mark.parametrize("port", [0, -1, 65536, (1 << 31) - 1])
def test_port_out_of_range_is_refused_by_its_place(port: int) -> None:
    with pytest.raises(Invalid, match=r"port\[1\]"):
        read_session.forward_session(pb.PortForwardRequest(pod_sandbox_id=ID, port=[80, port]))


def test_ports_are_limited_in_number() -> None:
    with pytest.raises(Invalid, match="1001 entries"):
        read_session.forward_session(pb.PortForwardRequest(pod_sandbox_id=ID, port=[80] * 1001))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(messages(pb.ExecRequest), messages(pb.AttachRequest), messages(pb.PortForwardRequest))
def test_any_request_is_read_or_refused(execute: Any, attach: Any, forward: Any) -> None:
    for parse, request in (
        (read_session.exec_session, execute),
        (read_session.attach_session, attach),
        (read_session.forward_session, forward),
    ):
        with contextlib.suppress(Invalid):
            parse(request)
