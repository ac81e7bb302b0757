"""What a container's root filesystem needs before its spec: looked at and written beneath its own root (threats R1, R14).

Blocking functions for a thread; one call does it all, because each hop costs as much as the work.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.model.container import ContainerConfig, Mount
from criollo.specgen import paths, users
from criollo.specgen.mounts import image_volumes
from criollo.specgen.process import working_directory
from criollo.specgen.request import ImageDefaults, PlannedMount

MAX_ACCOUNTS_BYTES: Final = 10 << 20  # of /etc/passwd and /etc/group in an image (threats R3)
PASSWD: Final = "/etc/passwd"  # noqa: S105
GROUP: Final = "/etc/group"


class Ground(NamedTuple):
    """Where things are made, and whose they are: `owner` is the host's uid and gid of the root inside."""

    rootfs: Path
    bundle: Path
    owner: tuple[int, int] = (0, 0)


class _Accounts(NamedTuple):
    """The image's files, None where there is none."""

    passwd: bytes | None
    group: bytes | None


class Prepared(NamedTuple):
    """Whom the process runs as, and mounts that come from the image rather than from the request."""

    user: users.ResolvedUser
    mounts: tuple[PlannedMount, ...]


def prepare(ground: Ground, config: ContainerConfig, image: ImageDefaults, *, image_volume_mode: str) -> Prepared:
    """Check the root, find the user, make what is missing: working directory, volumes, lines in passwd and group.

    Raises:
        Invalid: a hostile or broken image; the message names the file or field.
    """
    directory = files.open_directory(ground.rootfs)
    try:
        paths.check_rootfs({path: _mode(directory, path) for path in ("/", *paths.KERNEL)})
        passwd = files.read_in_root(directory, "etc/passwd", MAX_ACCOUNTS_BYTES)
        group = files.read_in_root(directory, "etc/group", MAX_ACCOUNTS_BYTES)
        user = users.resolve(config.security, image.user, passwd=passwd, group=group)
        _make(directory, working_directory(config, image), "working directory", ground.owner)
        with explain(f"make bundle {ground.bundle}"):
            os.makedirs(ground.bundle, 0o700, exist_ok=True)
        mounts = _volumes(directory, ground, image_volumes(image, config.mounts), image_volume_mode)
        mounts += _accounts(ground, user, _Accounts(passwd, group), config.mounts)
    finally:
        os.close(directory)
    return Prepared(user, tuple(mounts))


def _mode(directory: int, path: str) -> int | None:
    try:
        return os.stat("." if path == "/" else path.lstrip("/"), dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _make(directory: int, path: str, what: str, owner: tuple[int, int]) -> None:
    try:
        files.make_in_root(directory, path, owner=owner)
    except NotADirectoryError as error:
        raise Invalid(what, path, "a directory of the image: something on the way is not a directory") from error
    except OSError as error:
        raise Invalid(what, path, f"a path that can be made in the image ({error.strerror})") from error


def _volumes(directory: int, ground: Ground, wanted: Sequence[str], mode: str) -> list[PlannedMount]:
    """Directories that the image declares as volumes: made in the writable layer, or bound from the bundle."""
    mounts = []
    for number, path in enumerate(wanted if mode != "ignore" else ()):
        if mode == "mkdir":
            _make(directory, path, "image config Volumes", ground.owner)
            continue
        source = ground.bundle / "volumes" / str(number)
        with explain(f"make volume {path}"):
            os.makedirs(source, 0o755, exist_ok=True)
            files.own(source, ground.owner)
        mounts.append(PlannedMount(mount=Mount(container_path=path, host_path=str(source)), source=str(source)))
    return mounts


def _accounts(ground: Ground, user: users.ResolvedUser, found: _Accounts, asked: Sequence[Mount]) -> list[PlannedMount]:
    """passwd and group with lines for a user and a group that the image does not know: many programs fail without them."""
    mounts = []
    hidden = {mount.container_path.rstrip("/") for mount in asked}
    if not user.in_passwd and found.passwd is not None and hidden.isdisjoint(("/etc", PASSWD)):
        content = users.passwd_with(found.passwd, uid=user.uid, gid=user.gid, home=user.home)
        mounts.append(_file(ground, PASSWD, content))
    if found.group is not None and hidden.isdisjoint(("/etc", GROUP)):
        content = users.group_with(found.group, gid=user.gid)
        if content is not found.group:
            mounts.append(_file(ground, GROUP, content))
    return mounts


def _file(ground: Ground, path: str, content: bytes) -> PlannedMount:
    source = ground.bundle / os.path.basename(path)
    with explain(f"write {source}"):
        source.write_bytes(content)
        source.chmod(0o644)
        files.own(source, ground.owner)
    return PlannedMount(mount=Mount(container_path=path, host_path=str(source), readonly=True), source=str(source))
