"""Volumes from images and artifacts: what a container sees of them is mounted beside its root filesystem.

    <root>/rootfs/<id>/volumes/<n>/tree      an image's tree, read-only, or empty
    <root>/rootfs/<id>/volumes/<n>/part      the directory or file of it that a sub path means; `tree` is then empty again
    <root>/rootfs/<id>/volumes/<n>/<m>       the m-th file of an artifact: a hard link, or mounted
    <root>/rootfs/<id>/volumes/<n>/files/<m> with a SELinux label: the link is here, and `tree` shows it with the label

Named by the container's id, so whoever removes its root filesystem removes these. Blocking functions. Users of a user
namespace pass through, as far as they pass through `<root>/rootfs/<id>`.
"""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from criollo.errors import Invalid, NotFound
from criollo.linux import files, mount

DIRECTORY: Final = "volumes"
_NO_LINK: Final = (errno.EXDEV, errno.EMLINK, errno.EPERM)  # another file system or project, 65,000 links, none at all
_LABELLED: Final = mount.MS_RDONLY | mount.MS_NODEV | mount.MS_NOSUID | mount.MS_NOEXEC
_MAX_STACKED: Final = 4  # mounts at one place: a crash may leave two


def make(place: Path) -> Path:
    """Make the directories of a volume; returns where its tree is to be mounted."""
    for directory in (place.parent, place, place / "tree"):
        directory.mkdir(mode=0o755, exist_ok=True)
    return place / "tree"


def part(place: Path, sub_path: str) -> Path:
    """Show a sub path of the mounted tree alone, and unmount the tree. Links lead to where they lead in a root at the tree.

    Raises:
        NotFound: it is not there.
        Invalid: it is neither a directory nor a regular file.
        OSError: the kernel refused.
    """
    tree, target = place / "tree", place / "part"
    found = _open(tree, sub_path)
    try:
        mode = os.fstat(found).st_mode
        if stat.S_ISDIR(mode):
            target.mkdir(mode=0o755)
        elif stat.S_ISREG(mode):
            target.touch(mode=0o644)
        else:
            raise Invalid("image_sub_path", f"{sub_path} ({stat.filemode(mode)})", "a directory or a regular file")
        mount.bind(f"/proc/self/fd/{found}", target, readonly=True)
    finally:
        os.close(found)
    mount.unmount(tree, detach=True)
    return target


def show_files(place: Path, sources: Sequence[Path], *, label: str = "") -> list[Path]:
    """Give each file a place of its own, in the order of `sources`; with a `label` of SELinux they are seen with that.

    By hard links where they can be, since an artifact may have a thousand files and a mount namespace 100,000 mounts. The
    label is that of one mount over the links. Files that cannot be linked keep the label of the store.
    """
    make(place)
    if label and (linked := _linked(place / "files", sources)):
        _mount_labelled(place, label)
        return [place / "tree" / name for name in linked]
    shown = []
    for number, source in enumerate(sources):
        target = place / str(number)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            target.touch(mode=0o644)
            mount.bind(source, target, readonly=True)
        shown.append(target)
    return shown


def _linked(directory: Path, sources: Sequence[Path]) -> list[str]:
    """The names of the links in their order; none where one cannot be made."""
    directory.mkdir(mode=0o755, exist_ok=True)
    for number, source in enumerate(sources):
        try:
            os.link(source, directory / str(number))
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return []
    return [str(number) for number in range(len(sources))]


def _mount_labelled(place: Path, label: str) -> None:
    """Overlay wants two directories where none can be written, and paths without commas and colons."""
    (place / "none").mkdir(mode=0o755, exist_ok=True)
    with files.opened_directory(place) as fd:
        lower = f"lowerdir=/proc/self/fd/{fd}/files:/proc/self/fd/{fd}/none"
        mount.mount("overlay", place / "tree", "overlay", _LABELLED, f'{lower},context="{label}"')


def unmount_all(directory: Path) -> None:
    """Unmount the volumes below `<root>/rootfs/<id>/volumes`; none, and half-made ones, are success.

    They are read-only, so one that is still in use is detached.
    """
    for volume in _below(directory):
        for target in _below(volume):
            for _ in range(_MAX_STACKED):
                if not mount.unmount(target, detach=True):
                    break


def _below(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _open(tree: Path, sub_path: str) -> int:
    directory = files.open_directory(tree)
    try:
        return files.open_in_root(directory, sub_path, os.O_PATH)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound("sub path", sub_path, "it does not exist in the image volume") from error
    finally:
        os.close(directory)
