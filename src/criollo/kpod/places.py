"""Files of pods that kpod made.

    <log_dir>/<namespace>_<name>_<uid>/<container>/0.log     written by monitors
    <root>/kpod/volumes/<uid>/<volume>/                      emptyDir
    <root>/kpod/.load.*.kpod/                                what comes from standard input, while it is loaded

They go with the pod when kpod removes it, and only for pods that carry kpod's label.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from criollo.config.settings import Settings
from criollo.errors import explain
from criollo.linux.files import make_directory, remove_tree, try_lock

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,400}")
_POLL_S: Final = 0.05


def log_directory(settings: Settings, *, namespace: str, name: str, uid: str) -> Path:
    """Where the logs of a pod go."""
    return Path(settings.log_dir) / f"{namespace}_{name}_{uid}"


def own_directory(settings: Settings) -> Path:
    """kpod's own directory below the root, made when it is not there. Raises HostFailed."""
    path = Path(settings.root) / "kpod"
    with explain(f"make {path}"):
        make_directory(path, 0o700)
    return path


def spool_directory(settings: Settings) -> Path:
    """Where what comes from standard input waits. Raises HostFailed."""
    big_files = settings.image.big_files_temporary_dir
    return Path(big_files) if big_files else own_directory(settings)


def volumes_directory(settings: Settings, uid: str) -> Path:
    """Where the emptyDir volumes of a pod are; not made yet."""
    return Path(settings.root) / "kpod" / "volumes" / uid


@contextlib.asynccontextmanager
async def alone(settings: Settings) -> AsyncIterator[None]:
    """No other kpod is in this block meanwhile: what it sees of pods stays true until it has dealt with their files."""
    try:
        fd = os.open(settings.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # there are no files, or they are not ours to change
        yield
        return
    try:
        while not _locked(fd):  # noqa: ASYNC110 - it is another process that lets go of it
            await asyncio.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        return try_lock(fd)
    except OSError:  # a file system without such locks
        return True


def make_volume(path: Path) -> None:
    """An empty directory that every user of the pod may write to, as kubelet makes it; what an earlier pod left there goes."""
    with explain(f"make volume {path}"):
        remove_tree(path)
        os.makedirs(path.parent, 0o700, exist_ok=True)
        path.mkdir()
        path.chmod(0o777)


def forget(settings: Settings, *, namespace: str, name: str, uid: str) -> None:
    """Remove logs and volumes of a pod that is gone; names that cannot be ours are left alone. Raises HostFailed."""
    if not all(_PART.fullmatch(part) for part in (namespace, name, uid)):
        return
    with explain(f"remove the files of pod {name}"):
        remove_tree(log_directory(settings, namespace=namespace, name=name, uid=uid))
        remove_tree(volumes_directory(settings, uid))
        with contextlib.suppress(OSError):  # others' volumes are there, or none ever were
            volumes_directory(settings, uid).parent.rmdir()


def forget_unused(settings: Settings, *, namespace: str, name: str, uid: str) -> None:
    """Remove the log directory that was made for a pod which came to nothing; one that is used stays: another made that pod."""
    if all(_PART.fullmatch(part) for part in (namespace, name, uid)):
        with contextlib.suppress(OSError):
            log_directory(settings, namespace=namespace, name=name, uid=uid).rmdir()


def is_ours(labels: Mapping[str, str], label: str) -> bool:
    """Whether kpod made the pod."""
    return label in labels
