"""Mounting, unmounting, and the list of what is mounted. Source: mount(2), proc(5) mountinfo."""

import errno
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from criollo.linux import libc

MS_RDONLY: Final = 1  # linux/mount.h
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20

_OCTAL = re.compile(r"\\([0-7]{3})")


class MountEntry(NamedTuple):
    """One line of mountinfo. `propagation` holds words such as "shared:7", "master:3"."""

    mount_id: int
    parent_id: int
    root: str
    target: str
    options: tuple[str, ...]
    propagation: tuple[str, ...]
    fstype: str
    source: str

    @property
    def is_shared(self) -> bool:
        return any(word.startswith("shared:") for word in self.propagation)

    @property
    def is_slave(self) -> bool:
        return any(word.startswith("master:") for word in self.propagation)


def mount(source: str | Path, target: str | Path, fstype: str | None, flags: int = 0, options: str | None = None) -> None:
    libc.mount(str(source), str(target), fstype, flags, options)


def bind(source: str | Path, target: str | Path, *, recursive: bool = False, readonly: bool = False) -> None:
    flags = MS_BIND | (MS_REC if recursive else 0)
    libc.mount(str(source), str(target), None, flags)
    if readonly:
        libc.mount("none", str(target), None, flags | MS_REMOUNT | MS_RDONLY)


def make_shared(target: str | Path) -> None:
    libc.mount("none", str(target), None, MS_SHARED)


def make_private(target: str | Path, *, recursive: bool = False) -> None:
    libc.mount("none", str(target), None, MS_PRIVATE | (MS_REC if recursive else 0))


def unmount(target: str | Path, *, detach: bool = False) -> bool:
    """Unmount what is on top at `target`, never following a link; False when nothing is mounted there."""
    try:
        libc.umount2(str(target), libc.UMOUNT_NOFOLLOW | (libc.MNT_DETACH if detach else 0))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def mounts(pid: int | str = "self") -> list[MountEntry]:
    """All mounts of a process's namespace, in order."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [entry for line in lines if (entry := parse_mountinfo(line)) is not None]


def parse_mountinfo(line: str) -> MountEntry | None:
    """One line of mountinfo; None for one that is not whole."""
    words = line.split(" ")
    try:
        dash = words.index("-", 6)
        return MountEntry(
            mount_id=int(words[0]),
            parent_id=int(words[1]),
            root=_unescape(words[3]),
            target=_unescape(words[4]),
            options=tuple(words[5].split(",")),
            propagation=tuple(words[6:dash]),
            fstype=words[dash + 1],
            source=_unescape(words[dash + 2].rstrip("\n")),
        )
    except (ValueError, IndexError):
        return None


def below(directory: str | Path, entries: list[MountEntry] | None = None) -> list[str]:
    """Mount points at or below a directory, deepest (last mounted) first."""
    top = os.fspath(directory).rstrip("/")
    found = [
        entry.target
        for entry in (mounts() if entries is None else entries)
        if entry.target == top or entry.target.startswith(top + "/")
    ]
    return found[::-1]


def fstype_of(path: str | Path, entries: list[MountEntry] | None = None) -> str:
    """The type of the file system that holds a path free of links; empty when no mount does."""
    found = ""
    longest = -1
    for entry in mounts() if entries is None else entries:
        top = entry.target.rstrip("/")
        if (os.fspath(path) == top or os.fspath(path).startswith(top + "/")) and len(top) >= longest:
            found, longest = entry.fstype, len(top)
    return found


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
