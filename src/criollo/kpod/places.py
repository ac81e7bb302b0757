"""Files of pods that kpod made.

    <log_dir>/<namespace>_<name>_<uid>/<container>/0.log     written by monitors
    <root>/kpod/volumes/<uid>/<volume>/                      emptyDir
    <root>/kpod/load-*                                       archives from standard input, while they are loaded

They go with the pod when kpod removes it, and only for pods that carry kpod's label.
"""

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from criollo.config.settings import Settings
from criollo.errors import explain
from criollo.linux.files import make_directory, remove_tree

_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,400}")


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


def make_volume(path: Path) -> None:
    """An empty directory that every user of the pod may write to, as kubelet makes it."""
    with explain(f"make volume {path}"):
        os.makedirs(path.parent, 0o700, exist_ok=True)
        path.mkdir(exist_ok=True)
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


def is_ours(labels: Mapping[str, str], label: str) -> bool:
    """Whether kpod made the pod."""
    return label in labels
