"""Quotas by project (ext4, xfs): a number per writable layer, which all its files have; the kernel counts and bounds.

A place gets its number before anything is made in it, so its files inherit it. The numbers in use are those found on the
disk; one whose files are still being deleted is left alone until they are gone. Ours begin far from those that other
tools hand out, and one that has files of somebody else is never taken.
"""

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from criollo.errors import Exhausted, Unsupported
from criollo.linux import mount, quota
from criollo.linux.files import opened_directory
from criollo.storage.base import Limit, Usage

FIRST: Final = 0x43000000
COUNT: Final = 1 << 20


class Projects:
    """Project quotas below a store's `<root>/rootfs`; a `base.Quotas`."""

    def __init__(self) -> None:
        self._directory = Path()
        self._used: set[int] = set()
        self._next = 0
        self._lock = threading.Lock()  # the methods run in threads

    def open(self, directory: Path) -> None:
        """Find the numbers in use below `directory`."""
        self._directory = directory
        self._used = {project for name in os.listdir(directory) if (project := _project_of(directory / name))}

    def check(self) -> None:
        """Ask the file system.

        Raises:
            Unsupported: it does not bound projects.
        """
        with opened_directory(self._directory) as fd:
            if quota.is_enforced(fd):
                return
        fstype = mount.fstype_of(os.path.realpath(self._directory)) or "the file system"
        raise Unsupported(
            f"cannot limit writable layers: {fstype} of {self._directory} enforces no project quotas; mount an xfs, or an ext4 "
            "made with -O project,quota, with the option prjquota (Linux 5.14), or take the limits away"
        )

    def begin(self, place: Path) -> None:
        """Give a fresh place its number.

        Raises:
            Unsupported: see `check`.
            Exhausted: all numbers are taken.
        """
        self.check()
        with opened_directory(place) as fd:
            with self._lock:
                project = self._free(fd)
                self._used.add(project)
            quota.set_project(fd, project)

    def bound(self, place: Path, limit: Limit, brought: Usage) -> Usage:
        """Limit a place that `begin` was called for; what is in it by now does not count."""
        with opened_directory(place) as fd:
            project = quota.project_of(fd)
            now = quota.counted(fd, project)
            if now is not None:
                brought = Usage(now.used_bytes, now.used_inodes)
            quota.set_limits(
                fd,
                project,
                limit_bytes=limit.bytes + brought.bytes if limit.bytes else 0,
                limit_inodes=limit.inodes + brought.inodes if limit.inodes else 0,
            )
        return brought

    def usage(self, place: Path, brought: Usage) -> Usage | None:
        """What the file system has counted; None for a place without a number."""
        with opened_directory(place) as fd:
            project = quota.project_of(fd)
            found = quota.counted(fd, project) if _is_ours(project) else None
        if found is None:
            return None
        return Usage(max(0, found.used_bytes - brought.bytes), max(0, found.used_inodes - brought.inodes))

    def release(self, place: Path) -> None:
        """Take the limits away and the number back."""
        with contextlib.suppress(FileNotFoundError), opened_directory(place) as fd:
            project = quota.project_of(fd)
            if _is_ours(project):
                with contextlib.suppress(OSError):  # quotas were switched off: then nothing is bounded
                    quota.set_limits(fd, project, limit_bytes=0, limit_inodes=0)
                self._used.discard(project)

    def _free(self, fd: int) -> int:
        for _ in range(COUNT):
            project = FIRST + self._next
            self._next = (self._next + 1) % COUNT
            if project not in self._used:
                found = quota.counted(fd, project)
                if found is None or not (found.used_bytes or found.used_inodes):
                    return project
        raise Exhausted(f"cannot limit a writable layer: all {COUNT} project numbers from {FIRST} on are taken")


def _is_ours(project: int) -> bool:
    return FIRST <= project < FIRST + COUNT


def _project_of(place: Path) -> int:
    try:
        with opened_directory(place) as fd:
            return quota.project_of(fd)
    except (FileNotFoundError, NotADirectoryError):
        return 0
