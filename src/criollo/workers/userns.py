"""The job `userns`: a user namespace, and namespaces of other kinds that it owns, handed over as descriptors.

unshare(CLONE_NEWUSER) wants a process with one thread, and the maps must be written from outside, hence two processes:
one enters the namespaces and waits, the other writes its maps and opens what it has. A namespace whose descriptor is
held or bound lives on without them. Source: user_namespaces(7), namespaces(7).
"""

import contextlib
import os
import signal
from typing import Final, NoReturn

from criollo.errors import HostFailed, explain
from criollo.linux import libc, sandbox
from criollo.workers.messages import Namespaces, UsernsJob

_FLAGS: Final = {
    "user": libc.CLONE_NEWUSER,
    "net": libc.CLONE_NEWNET,
    "ipc": libc.CLONE_NEWIPC,
    "uts": libc.CLONE_NEWUTS,
}


def make(job: UsernsJob) -> tuple[Namespaces, list[int]]:
    """The answer and the descriptors that go with it; the user namespace is always among them.

    Raises:
        CriolloError: the kernel refused a namespace or a map.
    """
    kinds = ("user", *(kind for kind in job.kinds if kind in _FLAGS and kind != "user"))
    with explain("make a user namespace"):
        ready, ready_end = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _hold(ready_end, parent, sum(_FLAGS[kind] for kind in kinds))
        os.close(ready_end)
        try:
            answer = os.read(ready, 16)
            if answer != b"ok":
                number = int(answer or b"5")
                raise OSError(number, os.strerror(number))
            for name, lines in (("uid_map", job.uid_map), ("gid_map", job.gid_map)):
                _write_map(f"/proc/{pid}/{name}", lines)
            fds = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return Namespaces(kinds=kinds), fds


def _hold(ready: int, parent: int, flags: int) -> NoReturn:
    """Be the first process of the namespaces until we are killed."""
    try:
        libc.unshare(flags)
        sandbox.die_with_parent(parent)
        answer = b"ok"
    except OSError as error:
        answer = str(error.errno).encode()
    with contextlib.suppress(OSError):
        os.write(ready, answer)
    while True:
        signal.pause()


def _write_map(path: str, lines: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, lines.encode("ascii"))  # in one write: the kernel takes a map once
    except OSError as error:
        raise HostFailed(f"cannot make a user namespace: its {path.rpartition('/')[2]} {lines!r}: {error.strerror}") from error
    finally:
        os.close(fd)
