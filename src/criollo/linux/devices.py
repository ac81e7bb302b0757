"""Device nodes of this host, looked at and never opened; one is mended. Source: inode(7), makedev(3)."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from criollo.linux.near import open_near

_NOT_FOR_CONTAINERS: Final = frozenset({"pts", "shm", "fd", "mqueue", "console", ".lxc", ".lxd-mounts", ".udev"})


class Node(NamedTuple):
    """`type` is c or b, `mode` the permission bits."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


def look(path: str) -> list[Node]:
    """The node at a path, or all nodes below a directory; empty when there are none. Links are followed at `path` only,
    and nodes keep its name.

    Raises:
        OSError: the path is not there or cannot be looked at.
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    if stat.S_ISDIR(status.st_mode):
        return _renamed(_below(real, skip=frozenset()), real, path)
    node = _node(path, status)
    return [node] if node else []


def look_near(path: str) -> list[Node] | None:
    """As `look` for a path on the mount at /dev, which always answers; None for what leads off it. What is mounted on
    directories below it is not entered.

    Raises:
        OSError: the path is not there.
    """
    if not path.startswith("/dev/") or (fd := open_near("/dev", path[5:])) is None:
        return None
    try:
        status = os.fstat(fd)
        real = os.readlink(f"/proc/self/fd/{fd}") if stat.S_ISDIR(status.st_mode) else ""
    finally:
        os.close(fd)
    if real:
        return _renamed(_below(real, skip=frozenset(), near=True), real, path)
    node = _node(path, status)
    return [node] if node else []


def host_nodes(directory: str = "/dev") -> list[Node]:
    """What a privileged container sees: all nodes of /dev but the ones each container has of its own. File systems that are
    mounted on directories below it are not entered: one of them may be dead."""
    return list(_below(directory, skip=_NOT_FOR_CONTAINERS, near=True))


def restore_null(path: str = "/dev/null") -> bool:
    """Give the host's null device back to its root, mode 0666; True if it was somebody else's. What cannot be stays.

    crun (1.8 for one) gives a container's standard streams to the container's user, also when they are the host's device:
    who owns it may close it to everybody.
    """
    with contextlib.suppress(OSError):
        status = os.stat(path, follow_symlinks=False)
        if stat.S_ISCHR(status.st_mode) and (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (0, 0, 0o666):
            os.chown(path, 0, 0, follow_symlinks=False)
            os.chmod(path, 0o666)  # noqa: S103  # what everybody expects of it
            return True
    return False


def _below(directory: str, *, skip: frozenset[str], near: bool = False) -> Iterator[Node]:
    """Links, unreadable directories, and nodes that vanish meanwhile are passed over; with `near` also what is mounted."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name in skip or entry.is_symlink():
            continue
        try:
            if entry.is_dir(follow_symlinks=False):  # the listing knows
                if not near or _is_same_mount(directory, entry.name):
                    yield from _below(entry.path, skip=skip, near=near)
                continue
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if node := _node(entry.path, status):
            yield node


def _renamed(nodes: Iterable[Node], real: str, path: str) -> list[Node]:
    return [node._replace(path=path.rstrip("/") + node.path[len(real) :]) for node in nodes]


def _is_same_mount(directory: str, name: str) -> bool:
    fd = open_near(directory, name)
    if fd is not None:
        os.close(fd)
    return fd is not None


def _node(path: str, status: os.stat_result) -> Node | None:
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)) or status.st_rdev == 0:
        return None
    return Node(
        path=path,
        type="b" if stat.S_ISBLK(status.st_mode) else "c",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )
