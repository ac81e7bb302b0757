"""The files of one cgroup, kept open: opening one costs five times what reading it does.

An open file holds nothing of the cgroup: it may be removed meanwhile, and reading then answers ENODEV.
"""

import errno
import os
from typing import Final

from criollo.linux.cgroup import Hierarchies, Version
from criollo.stats.cgroup import PRESSURES, V1, V2, CgroupStats, Content, parse_v1, parse_v2

FILES: Final = 10  # at most, of one cgroup
SUBGROUP: Final = "container"  # where crun puts the processes of a systemd scope on version 2 (run.oci.systemd.subgroup)
_MAX_BYTES: Final = 8192  # memory.stat has a quarter of it


class OpenedCgroup:
    """What is counted of the cgroup `path`. Not for several threads at once, and all methods block.

    Raises:
        OSError: this process has too many files open.
    """

    def __init__(self, hierarchies: Hierarchies, path: str) -> None:
        self._is_v2 = hierarchies.version is Version.V2
        self._names = _names_v2(hierarchies, path) if self._is_v2 else _names_v1(hierarchies, path)
        self._fds: list[int] = []
        self._contents: list[Content] = []
        self._stats: CgroupStats | None = None
        try:
            for name in self._names:
                self._fds.append(_open(name))
        except OSError:
            self.close()
            raise

    def read(self) -> CgroupStats | None:
        """The counters now; None when the cgroup is gone."""
        contents = [_read(fd) for fd in self._fds]
        if contents != self._contents:  # of most containers nothing has happened since
            parse = parse_v2 if self._is_v2 else parse_v1
            self._contents, self._stats = contents, parse(contents[:-3], contents[-3:])
        return self._stats

    def close(self) -> None:
        """Let go of the files. Safe to repeat."""
        fds, self._fds = self._fds, [-1] * len(self._fds)
        for fd in fds:
            if fd >= 0:
                os.close(fd)


def read_once(hierarchies: Hierarchies, path: str) -> CgroupStats | None:
    """The counters of a cgroup now, without keeping anything open; None when it is gone (blocking)."""
    opened = OpenedCgroup(hierarchies, path)
    try:
        return opened.read()
    finally:
        opened.close()


def directory_v2(unified: str, path: str) -> str:
    """Where the counters of a cgroup of version 2 are: in the subgroup where the runtime has made one, limits included."""
    place = f"{unified}/{path.lstrip('/')}"
    below = f"{place}/{SUBGROUP}"
    return below if place.endswith(".scope") and os.path.exists(f"{below}/memory.current") else place


def _names_v1(hierarchies: Hierarchies, path: str) -> list[str]:
    below, found = path.lstrip("/"), []
    for controller, names in V1.items():
        root = hierarchies.controllers.get(controller)
        found += ["" if root is None else f"{root}/{below}/{name}" for name in names]
    return found + ["" if hierarchies.unified is None else f"{hierarchies.unified}/{below}/{name}" for name in PRESSURES]


def _names_v2(hierarchies: Hierarchies, path: str) -> list[str]:
    place = directory_v2(str(hierarchies.unified), path)
    return [f"{place}/{name}" for name in (*V2, *PRESSURES)]


def _open(name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC) if name else -1
    except OSError as error:  # ENOENT: gone, or not built in; EOPNOTSUPP: psi=0
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return -1


def _read(fd: int) -> Content:
    if fd < 0:
        return None
    try:
        return os.pread(fd, _MAX_BYTES, 0)
    except OSError:  # ENODEV: it was removed; EOPNOTSUPP: pressure is switched off
        return None
