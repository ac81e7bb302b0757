"""Quotas of the btrfs driver: each writable layer is a subvolume, and its quota group bounds what it has for itself.

What the image brought is shared with the image's tree and does not count. The kernel counts from the first limit on that
anybody asks for (`btrfs quota enable` for the whole file system), bytes alone, and as of its last transaction, which may be
half a minute ago; the limit itself holds at once. A subvolume that a container makes in its own has a group of its own, which
nobody bounds.
"""

import errno
from pathlib import Path

from criollo.errors import Unsupported
from criollo.linux import btrfs
from criollo.linux.files import opened_directory
from criollo.storage.base import Limit, Usage


class Groups:
    """Quota groups of the subvolumes `<root>/rootfs/<id>/diff`; a `base.Quotas`."""

    def __init__(self) -> None:
        self._directory = Path()

    def open(self, directory: Path) -> None:
        self._directory = directory

    def check(self) -> None:
        """Enable quotas.

        Raises:
            Unsupported: the kernel refused.
        """
        try:
            with opened_directory(self._directory) as fd:
                btrfs.enable_quotas(fd)
        except OSError as error:
            raise Unsupported(
                f"cannot limit writable layers: quotas of the btrfs at {self._directory} cannot be enabled: {error.strerror}"
            ) from error

    def begin(self, place: Path) -> None:
        """The group comes with the subvolume; quotas must be on by then."""
        self.check()

    def bound(self, place: Path, limit: Limit, brought: Usage) -> Usage:
        """Bound what the subvolume has for itself.

        Raises:
            Unsupported: inodes are to be limited, which btrfs does not count.
        """
        if limit.inodes:
            raise Unsupported(
                f"cannot limit a writable layer to {limit.inodes} inodes: btrfs counts none; limit bytes, or use overlay on xfs"
            )
        with opened_directory(place / "diff") as fd:
            btrfs.limit_exclusive(fd, limit.bytes)
        return brought

    def usage(self, place: Path, brought: Usage) -> Usage | None:
        """What the subvolume has for itself, as of the last transaction; None where quotas are off or nothing is bounded."""
        try:
            with opened_directory(place / "diff") as fd:
                group = btrfs.group_of(fd) if btrfs.is_subvolume(fd) else None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EPERM):
                return None
            raise
        return None if group is None or not group.limit_bytes else Usage(group.exclusive_bytes, 0)

    def release(self, place: Path) -> None:
        """The group's limit goes with the subvolume."""
