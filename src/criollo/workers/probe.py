"""The job `probe`: what a volume source is. It may hang in the kernel (FUSE, NFS), so it runs where it can be killed.

The source is opened once, by O_PATH, and everything is told of that descriptor: a link that changes meanwhile cannot
make the parts disagree.
"""

import os
import stat
from typing import Final

from criollo.errors import HostFailed, explain
from criollo.linux import mount
from criollo.workers.messages import Probe, ProbeJob

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
    os.umask(0o022)
    with explain(f"look at volume source {job.path!r}"):
        try:
            fd = os.open(job.path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            if not job.create:
                return Probe(kind="missing")
            os.makedirs(job.path, 0o755, exist_ok=True)
            fd = os.open(job.path, os.O_PATH | os.O_CLOEXEC)
        try:
            return _describe(fd)
        finally:
            os.close(fd)


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
