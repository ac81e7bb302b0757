"""Kernel namespaces that live without a process: made by a thread, pinned as files.

    <namespaces_dir>/netns/<pod id>   ipcns/<pod id>   utsns/<pod id>   userns/<pod id>   pidns/<pod id>

Each file is a bind mount of /proc/thread-self/ns/<kind>; for PIDs, of a process's. `netns` is a shared mount of its own, as
iproute2 makes it, so that the first `ip netns add` on a node does not hide what we pinned. `pin` and `run_in` change the
calling *thread* and must run in one that ends afterwards (`aio.threads.fresh`). They raise OSError.

Source: namespaces(7), setns(2), proc(5) thread-self; ip-netns(8) for the shared mount.
"""

import errno
import os
import socket
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from criollo.linux import libc, mount, netlink, procfs

T = TypeVar("T")

PROC_SUPER_MAGIC: Final = 0x9FA0  # linux/magic.h
SYSCTL_ROOT: Final = "/proc/sys"


class NamespaceKind(StrEnum):
    """A kind of namespace; the value is its name below /proc/PID/ns."""

    NET = "net"
    IPC = "ipc"
    UTS = "uts"
    USER = "user"
    PID = "pid"


_FLAGS: Final = {
    NamespaceKind.NET: libc.CLONE_NEWNET,
    NamespaceKind.IPC: libc.CLONE_NEWIPC,
    NamespaceKind.UTS: libc.CLONE_NEWUTS,
    NamespaceKind.USER: libc.CLONE_NEWUSER,
    NamespaceKind.PID: libc.CLONE_NEWPID,
}
_UNSHARED: Final = frozenset({NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS})  # a thread may leave these alone


def directory_of(namespaces_dir: Path, kind: NamespaceKind) -> Path:
    return namespaces_dir / f"{kind}ns"


def prepare_directory(namespaces_dir: Path) -> None:
    """Make the five directories; `netns` becomes a shared mount, unless it is one already. Safe to repeat."""
    for kind in NamespaceKind:
        directory = directory_of(namespaces_dir, kind)
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    netns = directory_of(namespaces_dir, NamespaceKind.NET)
    try:
        mount.make_shared(netns)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: no mount point yet
            raise
        mount.bind(netns, netns, recursive=True)
        mount.make_shared(netns)


def pin(
    kinds: Collection[NamespaceKind],
    paths: Mapping[NamespaceKind, Path],
    *,
    hostname: str | None = None,
    sysctls: Mapping[str, str] | None = None,
    made: Mapping[NamespaceKind, int] | None = None,
) -> None:
    """Make namespaces and keep them as files; about 1 ms. For a throw-away thread only.

    Net, ipc and uts are made here, with `lo` up, the hostname set and the sysctls written inside them, unless `made`
    holds a descriptor of that kind: then it is entered and pinned (what a user namespace owns must be made in it, by a
    process with a single thread; see `workers`). User and pid namespaces must come in `made`. Sysctl names are dotted,
    a `/` in a part standing for a dot, and were checked by the caller.

    On an error some files may be there; `unpin` removes them.

    Raises:
        OSError: `filename` names the sysctl file or the pinned path at fault.
    """
    given = made or {}
    fresh = [kind for kind in kinds if kind not in given]
    for kind in fresh:
        if kind not in _UNSHARED:
            raise OSError(errno.EINVAL, "a thread cannot make this kind of namespace", str(kind))
    for kind, fd in given.items():
        if kind in _UNSHARED:
            libc.setns(fd, _FLAGS[kind])
    if fresh:
        libc.unshare(sum(_FLAGS[kind] for kind in fresh))
    if NamespaceKind.NET in kinds:
        netlink.set_up("lo")
    if NamespaceKind.UTS in kinds and hostname is not None:
        socket.sethostname(hostname)
    for name, value in (sysctls or {}).items():
        write_sysctl(name, value)
    for kind in kinds:
        source = f"/proc/self/fd/{given[kind]}" if kind in given else f"/proc/thread-self/ns/{kind}"
        _pin_one(source, paths[kind])


def pin_of(pid: int, started: int, kind: NamespaceKind, path: Path) -> bool:
    """Keep a namespace of a process as a file; False, and nothing is kept, when that very process does not live any more.

    Its start time is read after the mount: who has taken over its number before that is found out.

    Raises:
        OSError: the kernel refused.
    """
    try:
        _pin_one(f"/proc/{pid}/ns/{kind}", path)
        trouble = None
    except OSError as error:
        trouble = error
    lives = procfs.is_alive(pid, started)
    if trouble is None and lives:
        return True
    unpin(path)
    if trouble is not None and lives:
        raise trouble
    return False


def unpin(path: Path) -> bool:
    """Let go of a pinned namespace: unmount, remove the file. True if there was something.

    Safe to repeat; also removes a plain file that a crash left where the mount should have been.
    """
    found = False
    while mount.unmount(path, detach=True):
        found = True
    try:
        os.unlink(path)
    except FileNotFoundError:
        return found
    return True


def is_pinned(path: Path) -> bool:
    """Whether the path is a namespace, not a leftover plain file or nothing."""
    try:
        return os.lstat(path).st_dev == os.stat("/proc/self/ns/net").st_dev  # all of them are files of the one nsfs
    except OSError:
        return False


def run_in(path: Path, function: Callable[[], T]) -> T:
    """Call `function` inside a pinned network namespace. For a throw-away thread only."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(fd, libc.CLONE_NEWNET)
    finally:
        os.close(fd)
    return function()


def write_sysctl(name: str, value: str) -> None:
    """Write a sysctl of the namespaces that the calling thread is in.

    Opened beneath /proc/sys without following links, and only if the file is the kernel's own (CVE-2025-52881: a write
    to procfs that was redirected elsewhere).
    """
    relative = "/".join(part.replace("/", ".") for part in name.split("."))
    shown = f"{SYSCTL_ROOT}/{relative}"
    root = os.open(SYSCTL_ROOT, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_MAGICLINKS | libc.RESOLVE_NO_XDEV
        fd = _named(shown, lambda: libc.openat2(root, relative, os.O_WRONLY, resolve=flags))
    finally:
        os.close(root)
    try:
        if libc.fstatfs_type(fd) != PROC_SUPER_MAGIC:
            raise OSError(errno.EXDEV, "not a file of procfs", shown)
        _named(shown, lambda: os.write(fd, value.encode()))
    finally:
        os.close(fd)


def _pin_one(source: str, path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444)
    os.close(fd)
    mount.bind(source, path)


def _named(path: str, call: Callable[[], T]) -> T:
    """Put the file's name into the OSError of a call that works on a descriptor."""
    try:
        return call()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
