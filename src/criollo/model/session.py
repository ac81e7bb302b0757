"""What a client may open once, with a token: an exec, an attach, a port-forward. Source: CRI v1, Exec, Attach, PortForward."""

import msgspec

from criollo.model.ids import ContainerId, PodId


class ExecSession(msgspec.Struct, frozen=True, kw_only=True):
    """A command to run in a container. With `tty` there is no stderr of its own."""

    container_id: ContainerId
    argv: tuple[str, ...]
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


class AttachSession(msgspec.Struct, frozen=True, kw_only=True):
    """The streams of a container's own process. `tty` is the container's."""

    container_id: ContainerId
    tty: bool = False
    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


class ForwardSession(msgspec.Struct, frozen=True, kw_only=True):
    """Connections into a pod sandbox. `ports`: those that may be dialled; empty for any."""

    pod_id: PodId
    ports: tuple[int, ...] = ()


Session = ExecSession | AttachSession | ForwardSession
