"""A whole tree shown at another place: a bind mount, id-mapped for a user namespace, read-only on demand (blocking)."""

import os
from pathlib import Path

from criollo.errors import explain
from criollo.linux import fsmount, idmap, mount
from criollo.storage.base import Mapped
from criollo.storage.mapped import opened, refused


def show(tree: Path, target: Path, *, mapped: Mapped | None, readonly: bool) -> None:
    """Show `tree` at `target`.

    Raises:
        Unsupported: mapped owners where the kernel or the file system has none.
        HostFailed: the kernel refused.
    """
    with explain(f"mount {tree} at {target}"):
        if mapped is None:
            mount.bind(tree, target, readonly=readonly)
            return
        _show_mapped(tree, target, mapped)
        if readonly:
            mount.mount("none", target, None, mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY)


def _show_mapped(tree: Path, target: Path, mapped: Mapped) -> None:
    user_ns = opened(mapped.user_ns)
    try:
        clone = fsmount.clone(tree)
        try:
            idmap.shift(clone, user_ns)
            fsmount.attach(clone, target)
        except idmap.Refused as error:
            raise refused(tree, error) from error
        finally:
            os.close(clone)
    finally:
        os.close(user_ns)
