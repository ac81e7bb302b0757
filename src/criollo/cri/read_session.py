"""Exec, Attach and PortForward as sessions. Source: CRI v1, ExecRequest, AttachRequest, PortForwardRequest."""

from typing import Final

from criollo.cri import checks, read
from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.ids import ContainerId, PodId
from criollo.model.session import AttachSession, ExecSession, ForwardSession

_MAX_PORT: Final = 0xFFFF
_MAX_PORTS: Final = 1000


def exec_session(request: pb.ExecRequest) -> ExecSession:
    argv = checks.arguments("cmd", request.cmd)
    if not argv or not argv[0]:
        raise Invalid("cmd", argv, "a command")
    _check_streams(request)
    return ExecSession(
        container_id=_container_id(request.container_id),
        argv=argv,
        tty=request.tty,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
    )


def attach_session(request: pb.AttachRequest) -> AttachSession:
    _check_streams(request)
    return AttachSession(
        container_id=_container_id(request.container_id),
        tty=request.tty,
        stdin=request.stdin,
        stdout=request.stdout,
        stderr=request.stderr,
    )


def forward_session(request: pb.PortForwardRequest) -> ForwardSession:
    """Without ports: any port, which the client names with each connection."""
    checks.count("port", request.port, _MAX_PORTS)
    ports = tuple(checks.number(f"port[{index}]", port, 1, _MAX_PORT) for index, port in enumerate(request.port))
    return ForwardSession(pod_id=PodId(read.object_id("pod_sandbox_id", request.pod_sandbox_id)), ports=ports)


def _check_streams(request: pb.ExecRequest | pb.AttachRequest) -> None:
    if not (request.stdin or request.stdout or request.stderr):
        raise Invalid("stdin, stdout, stderr", "none", "at least one of them")
    if request.tty and request.stderr:
        raise Invalid("stderr", True, "false with tty: a terminal has one output")


def _container_id(value: str) -> ContainerId:
    return ContainerId(read.object_id("container_id", value))
