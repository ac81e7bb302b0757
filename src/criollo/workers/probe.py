"""The jobs `probe` and `devices`: what a path of this node is. It may hang in the kernel (FUSE, NFS), so it runs where it can
be killed.

A volume source is opened once, by O_PATH, and everything is told of that descriptor: a link that changes meanwhile cannot
make the parts disagree.
"""

import errno
import os
import stat
from typing import Final

from criollo.errors import Exhausted, HostFailed, explain
from criollo.linux import files, mount
from criollo.linux.devices import look
from criollo.workers.messages import Devices, DevicesJob, Probe, ProbeJob

MOST_NODES: Final = 100  # with long names they fill an answer

_KINDS: Final = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def probe(job: ProbeJob) -> Probe:
    """Look at `job.path`; with `job.create`, a missing one becomes a directory (mode 0755, parents too).

    Raises:
        CriolloError: it cannot be opened or made.
    """
    with explain(f"look at volume source {job.root + job.path!r}"):
        try:
            fd = _open(job)
        except FileNotFoundError:
            if not job.create:
                return Probe(kind="missing")
            _make(job)
            fd = _open(job)
        try:
            return _describe(fd)
        finally:
            os.close(fd)


def devices(job: DevicesJob) -> Devices:
    """The nodes at a path, or why there are none to see. Raises Exhausted for more than an answer has room for."""
    try:
        found = look(job.path)
    except OSError as error:
        return Devices(errno=error.errno or errno.EIO)
    if len(found) > MOST_NODES:
        raise Exhausted(f"cannot take the devices below {job.path}: {len(found)} of them, more than {MOST_NODES}")
    return Devices(nodes=tuple((*node,) for node in found))


def _open(job: ProbeJob) -> int:
    if not job.root:
        return os.open(job.path, os.O_PATH | os.O_CLOEXEC)
    root = files.open_directory(job.root)
    try:
        return files.open_in_root(root, job.path, os.O_PATH)
    finally:
        os.close(root)


def _make(job: ProbeJob) -> None:
    if not job.root:
        os.makedirs(job.path, 0o755, exist_ok=True)
        return
    root = files.open_directory(job.root)
    try:
        _make_in_root(root, [part for part in job.path.split("/") if part])
    finally:
        os.close(root)


def _make_in_root(root: int, parts: list[str]) -> None:
    """Each directory is made beneath the one that was opened before, so that no link leads it out."""
    for count in range(1, len(parts) + 1):
        above = files.open_in_root(root, "/".join(parts[: count - 1]) or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            os.mkdir(parts[count - 1], 0o755, dir_fd=above)
        except FileExistsError:
            continue
        finally:
            os.close(above)


def _describe(fd: int) -> Probe:
    status = os.fstat(fd)
    entry = _mount_of(fd)
    return Probe(
        kind=_KINDS[stat.S_IFMT(status.st_mode)],
        path=os.readlink(f"/proc/self/fd/{fd}"),
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mount_point=entry.target,
        propagation="shared" if entry.is_shared else "slave" if entry.is_slave else "private",
        fstype=entry.fstype,
        readonly="ro" in entry.options,
        stamp=(status.st_ino, status.st_ctime_ns, status.st_size),
    )


def _mount_of(fd: int) -> mount.MountEntry:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        mount_id = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        found = next((line for line in lines if line.startswith(f"{mount_id} ")), "")  # there may be hundreds
    entry = mount.parse_mountinfo(found)
    if entry is None:
        raise HostFailed("the mount of a volume source went away while it was looked at")
    return entry
