"""The job `userns`: a user namespace, and namespaces of other kinds that it owns, handed over as descriptors.

unshare(CLONE_NEWUSER) wants a process with one thread, and the maps must be written from outside, hence two processes:
one enters the namespaces, waits for its maps, and writes sysctls as their root; the other writes the maps and opens what
it has. A namespace whose descriptor is held or bound lives on without them. Source: user_namespaces(7), namespaces(7).
"""

import contextlib
import os
import signal
from typing import Final, NoReturn

from criollo.errors import HostFailed, explain
from criollo.linux import libc, sandbox
from criollo.linux.namespaces import write_sysctl
from criollo.workers.messages import Namespaces, UsernsJob

_FLAGS: Final = {
    "user": libc.CLONE_NEWUSER,
    "net": libc.CLONE_NEWNET,
    "ipc": libc.CLONE_NEWIPC,
    "uts": libc.CLONE_NEWUTS,
}
_ANSWER_BYTES: Final = 4096
_OK: Final = b"0 "


def make(job: UsernsJob) -> tuple[Namespaces, list[int]]:
    """The answer and the descriptors that go with it: the user namespace always, none when a sysctl was refused.

    Raises:
        CriolloError: the kernel refused a namespace or a map.
    """
    kinds = ("user", *(kind for kind in job.kinds if kind in _FLAGS and kind != "user"))
    with explain("make a user namespace"):
        answers, answer_end = os.pipe()
        go_end, go = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(go)  # or its own end would keep it waiting
            _hold(answer_end, go_end, parent, job.sysctls, flags=sum(_FLAGS[kind] for kind in kinds))
        os.close(answer_end)
        try:
            number, name = _answer(answers)
            if number:
                raise OSError(number, os.strerror(number))
            for file, lines in (("uid_map", job.uid_map), ("gid_map", job.gid_map)):
                _write_map(f"/proc/{pid}/{file}", lines)
            os.write(go, b"\0")
            number, name = _answer(answers)
            if number:
                return Namespaces(kinds=(), refused=name, errno=number), []
            fds = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return Namespaces(kinds=kinds), fds


def _answer(pipe: int) -> tuple[int, str]:
    """What the other process says of its last step: an errno, 0 for none, and the file at fault."""
    number, _, name = (os.read(pipe, _ANSWER_BYTES) or b"5 ").decode("utf-8", "replace").partition(" ")
    return int(number), name


def _hold(answers: int, go: int, parent: int, sysctls: dict[str, str], *, flags: int) -> NoReturn:
    """Be the first process of the namespaces until we are killed."""
    try:
        libc.unshare(flags)
        sandbox.die_with_parent(parent)
        os.write(answers, _OK)
        os.read(go, 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        sandbox.die_with_parent(parent)  # changing ids has undone it
        for name, value in sysctls.items():
            write_sysctl(name, value)
        answer = _OK
    except OSError as error:
        answer = f"{error.errno} {error.filename or ''}".encode()
    with contextlib.suppress(OSError):
        os.write(answers, answer)
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
