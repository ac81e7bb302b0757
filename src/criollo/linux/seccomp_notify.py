"""Listeners of seccomp filters: take system calls that wait for an answer, and answer them. No policy.

A listener is a descriptor that a runtime sends once its filter is in place. While somebody holds it, a call that the filter
hands over waits for an answer; when the last descriptor is closed, those that wait and all further ones get ENOSYS.
Source: seccomp_unotify(2); OCI runtime-spec, config-linux.md, The Container Process State; linux/seccomp.h.
"""

import array
import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import select
import socket
import struct
from typing import Final, NamedTuple

from criollo.linux.seccomp import LIBRARY

_RECV: Final = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV, struct seccomp_notif of 80 bytes
_SEND: Final = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND, struct seccomp_notif_resp of 24
_NOTIF: Final = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, nr, arch, ip, args
_ANSWER: Final = struct.Struct("=QqiI")  # id, value, error, flags
_X86_64, _X32, _X32_BIT = 0xC000003E, 0x4000003E, 0x40000000  # linux/audit.h, seccomp.h, asm/unistd.h
_MOST_BYTES: Final = 1 << 16
_MOST_FDS: Final = 16


class Call(NamedTuple):
    """A call that waits; `pid` is its thread as we see it."""

    id: int
    pid: int
    number: int
    architecture: int

    @property
    def name(self) -> str:
        return name_of(self.architecture, self.number)


def receive(connection: socket.socket) -> tuple[list[int], bytes]:
    """The descriptors that a runtime sends, close-on-exec, and its words about them. The socket has something to read.

    Raises:
        OSError: it cannot be read.
    """
    fds = array.array("i")
    # Not socket.recv_fds: in Python 3.11 it forgets its flags.
    said, ancillary, _, _ = connection.recvmsg(_MOST_BYTES, socket.CMSG_LEN(_MOST_FDS * fds.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return list(fds), said


def take(listener: int) -> Call | None:
    """The next call that waits; None when there is none any more: whoever made it is gone.

    Raises:
        EOFError: nobody lives under the filter.
        OSError: it is no listener.
    """
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    found = dict(poll.poll(0)).get(listener, 0)
    if not found & select.POLLIN:
        if found:
            raise EOFError
        return None
    request = bytearray(_NOTIF.size)
    try:
        fcntl.ioctl(listener, _RECV, request)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    number, pid, _, call, architecture, *_ = _NOTIF.unpack(request)
    return Call(number, pid, call, architecture)


def refuse(listener: int, call: Call, code: int) -> None:
    """Let a call fail with an errno; one whose thread is gone needs no answer."""
    with contextlib.suppress(FileNotFoundError):
        fcntl.ioctl(listener, _SEND, bytearray(_ANSWER.pack(call.id, 0, -code, 0)))


@functools.lru_cache(maxsize=1024)
def name_of(architecture: int, number: int) -> str:
    """The name of a call, as libseccomp knows it; its number otherwise."""
    if architecture == _X86_64 and number & _X32_BIT:
        architecture = _X32
    with contextlib.suppress(OSError, AttributeError):
        resolve = ctypes.CDLL(LIBRARY).seccomp_syscall_resolve_num_arch
        resolve.restype, resolve.argtypes = ctypes.c_void_p, (ctypes.c_uint32, ctypes.c_int)
        found = resolve(architecture, number)
        if found:
            name = ctypes.string_at(found).decode("ascii", "replace")
            _free(found)
            return name
    return f"number {number}"


def _free(pointer: int) -> None:
    free = ctypes.CDLL(None).free
    free.restype, free.argtypes = None, (ctypes.c_void_p,)
    free(pointer)


def close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
