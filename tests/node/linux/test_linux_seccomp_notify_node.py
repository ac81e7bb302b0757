"""Listeners of the kernel, with a filter made by libseccomp and a child that lives under it."""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from criollo.linux import seccomp, seccomp_notify
from criollo.linux.seccomp_notify import Call

pytestmark = [pytest.mark.node, pytest.mark.skipif(not seccomp.is_available(), reason="libseccomp2 is not installed")]

_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000  # seccomp.h
_PR_SET_NO_NEW_PRIVS, _SYS_SECCOMP, _NEW_LISTENER = 38, 317, 8  # x86_64


def _filter(*names: str) -> bytes:
    library = ctypes.CDLL(seccomp.LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(_ALLOW))
    for name in names:
        assert (
            library.seccomp_rule_add_array(context, _NOTIFY, library.seccomp_syscall_resolve_name(name.encode()), 0, None) == 0
        )
    fd = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, fd) == 0
        return os.pread(fd, 1 << 16, 0)
    finally:
        os.close(fd)
        library.seccomp_release(context)


@pytest.fixture
def confined() -> Iterator[tuple[int, int]]:
    """A child that makes one directory under a listener, and the listener; its status is the errno it got."""
    program = _filter("mkdir", "mkdirat")
    ours, theirs = socket.socketpair()
    pid = os.fork()  # noqa: TID251  # the test has one thread, and wants a process of its own under a filter
    if pid == 0:
        code = 255
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            buffer = ctypes.create_string_buffer(program, len(program))
            head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
            listener = libc.syscall(_SYS_SECCOMP, 1, _NEW_LISTENER, head)
            socket.send_fds(theirs, [b"state"], [listener])
            os.close(listener)
            try:
                os.mkdir("/nowhere/at/all")
            except OSError as error:
                code = error.errno
        finally:
            os._exit(code)
    theirs.close()
    fds, said = seccomp_notify.receive(ours)
    assert said == b"state"
    yield pid, fds[0]
    ours.close()
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _next(listener: int) -> Call | None:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    assert poll.poll(10_000)
    return seccomp_notify.take(listener)


def test_call_is_named_and_gets_its_answer(confined: tuple[int, int]) -> None:
    pid, listener = confined
    call = _next(listener)
    assert call is not None
    assert (call.pid, call.name) == (pid, "mkdir")
    seccomp_notify.refuse(listener, call, errno.EOPNOTSUPP)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EOPNOTSUPP
    with pytest.raises(EOFError):
        _next(listener)
    seccomp_notify.refuse(listener, call, errno.EPERM)  # too late is no error


def test_closing_the_last_listener_frees_who_waits(confined: tuple[int, int]) -> None:
    pid, listener = confined
    assert _next(listener) is not None
    os.close(listener)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.ENOSYS


def test_numbers_have_names() -> None:
    assert seccomp_notify.name_of(0xC000003E, 0) == "read"
    assert seccomp_notify.name_of(0xC000003E, 0x40000000) == "read"
    assert seccomp_notify.name_of(0xC000003E, 9999) == "number 9999"
