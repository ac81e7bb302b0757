"""Layers as a user namespace sees them: id-mapped clones, so that files of the image's root belong to the pod's root.

While overlay is being mounted, the clones sit on a tmpfs of their own, mounted where the root filesystem will be:

    <target>/                a private tmpfs, seen by nobody else
    <target>/0, 1, …         the layers, top first
    <target>/merged          the overlay over them, until it takes the place of the tmpfs

Overlay keeps clones of its own, so the tmpfs goes with all on it as soon as overlay is mounted. What a crash leaves is at
the target and goes with it. The directories on the way to the target, closed (0700) until then, become passable (0711).

Source: mount_setattr(2); Linux, Documentation/filesystems/overlayfs.rst; layers with mapped ids since Linux 5.19.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from criollo.errors import HostFailed, Unsupported
from criollo.linux import fsmount, idmap, mount, procfs
from criollo.linux.files import let_pass
from criollo.linux.namespaces import is_pinned
from criollo.storage.base import Mapped

OVERLAY_SINCE: Final = (5, 19)

_FLAGS: Final = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC


def mount_over(layers: Sequence[Path], target: Path, mapped: Mapped, mount_overlay: Callable[[str, str], None]) -> None:
    """Mount an overlay of mapped layers (bottom first) at `target`; `mount_overlay(lowerdir, where)` makes it.

    It is called with short names, relative to the calling thread's directory, which is `/` afterwards (blocking).

    Raises:
        Unsupported: the kernel or the layers' file system cannot do it.
        OSError: the kernel refused something else.
    """
    with _shown(layers, target, mapped):
        os.mkdir("merged")
        try:
            mount_overlay(":".join(map(str, range(len(layers)))), "merged")
        except OSError as error:
            if error.errno == errno.EINVAL and procfs.kernel_version() < OVERLAY_SINCE:
                raise _unsupported(f"overlay takes id-mapped layers since Linux 5.19, this is {os.uname().release}") from error
            raise
        made = fsmount.clone("merged")
    try:
        fsmount.attach(made, target)
    finally:
        os.close(made)


def open_way(*directories: Path) -> None:
    """Let users of a user namespace pass our own directories, outermost first (blocking). They stay so; nobody can list.

    Runtimes look the root filesystem up as the root inside. Directories above ours are the administrator's.

    Raises:
        HostFailed: one of those is closed.
        OSError: a mode could not be changed.
    """
    for above in Path(os.path.realpath(directories[0])).parents:
        mode = stat.S_IMODE(os.stat(above).st_mode)
        if not mode & stat.S_IXOTH:
            raise HostFailed(
                f"cannot run a pod with a user namespace: its users must pass {above}, which has mode {mode:04o}; "
                f"run chmod o+x {above}, or choose another root in the configuration"
            )
    for directory in directories:
        let_pass(directory)


@contextlib.contextmanager
def _shown(layers: Sequence[Path], place: Path, mapped: Mapped) -> Iterator[None]:
    """For the block, the thread's directory is a private tmpfs at `place` with the mapped layers on it."""
    user_ns = opened(mapped.user_ns)
    try:
        mount.mount("layers", place, "tmpfs", _FLAGS, "mode=700")
        try:
            mount.make_private(place)
            os.chdir(place)
            for number, layer in enumerate(reversed(layers)):
                os.mkdir(str(number))
                attach(layer, user_ns, str(number))
            yield
        finally:
            os.chdir("/")
            mount.unmount(place, detach=True)
    finally:
        os.close(user_ns)


def attach(tree: Path, user_ns: int, target: str | Path) -> None:
    """Show a directory at `target`, its owners mapped by a user namespace's descriptor.

    Raises:
        Unsupported: its file system cannot.
    """
    clone = fsmount.clone(tree)
    try:
        idmap.shift(clone, user_ns)
        fsmount.attach(clone, target)
    except idmap.IdmapRefused as error:
        raise refused(tree, error) from error
    finally:
        os.close(clone)


def opened(path: Path) -> int:
    """A descriptor of the user namespace pinned at `path`.

    Raises:
        HostFailed: none is.
    """
    if not is_pinned(path):
        raise HostFailed(f"cannot map a root filesystem: no user namespace is pinned at {path}; remove the pod")
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def refused(layer: Path, error: OSError) -> Unsupported:
    """Why a tree cannot be mapped, for `IdmapRefused`."""
    release = os.uname().release
    if error.errno == errno.ENOSYS:
        return _unsupported(f"id-mapped mounts need Linux 5.12, this is {release}")
    fstype = mount.fstype_of(layer)
    return _unsupported(
        f"{fstype or 'the file system'} of {layer.parent} has no id-mapped mounts in Linux {release}; keep the root on ext4 or "
        "xfs (Linux 5.12), btrfs (5.15) or tmpfs (6.3)"
    )


def _unsupported(why: str) -> Unsupported:
    return Unsupported(f"cannot run a pod with a user namespace: {why}")
