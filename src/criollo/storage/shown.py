"""A whole tree shown at another place: a bind mount, id-mapped for a user namespace, read-only on demand (blocking)."""

import os
from pathlib import Path

from criollo.errors import explain
from criollo.linux import mount
from criollo.storage.base import Mapped
from criollo.storage.mapped import attach, opened


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
        attach(tree, user_ns, target)
    finally:
        os.close(user_ns)
