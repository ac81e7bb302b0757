"""link-logs.crio.io: a pod reads the logs of its containers in a volume of its own.

    annotation link-logs.crio.io=VOLUME         an emptyDir of the pod
    <kubelet>/pods/UID/volumes/kubernetes.io~empty-dir/VOLUME       the pod's log directory, bound there read-only
    <log directory>/<container id>.log          → NAME/ATTEMPT.log

Read-only, because kubelet deletes what it finds in a volume. What was bound is in the pod's record before it is bound, and is
taken away only while it is still that directory. Blocking, for a thread.
"""

import contextlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from criollo.errors import Invalid, explain
from criollo.linux import mount
from criollo.model.pod import PodConfig
from criollo.specgen.asked import find

LINK_LOGS: Final = "link-logs.crio.io"
KEY: Final = "linked-logs"  # among the files of a pod
KUBELET: Final = Path("/var/lib/kubelet/pods")

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # RFC 1123
_UID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", re.ASCII)
_FLAGS: Final = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC | mount.MS_RDONLY


def planned(config: PodConfig, allowed: Collection[str], *, kubelet: Path = KUBELET) -> dict[str, str]:
    """Where the logs of a pod shall be seen, under `KEY`; empty where it does not ask.

    Raises:
        Invalid: no name of a volume, or a pod with a strange uid.
    """
    volume = find(config.annotations, LINK_LOGS, allowed)
    if volume is None:
        return {}
    if not _LABEL.fullmatch(volume):
        raise Invalid(f"annotation {LINK_LOGS}", volume, "the name of an emptyDir volume of the pod")
    if not _UID.fullmatch(config.uid):
        raise Invalid("config.metadata.uid", config.uid, f"letters, digits and dashes, as {LINK_LOGS} looks for its volume")
    return {KEY: str(kubelet / config.uid / "volumes" / "kubernetes.io~empty-dir" / volume)}


def bind(files: Mapping[str, str], log_directory: str) -> None:
    """Show the logs of a pod where it asks for them; nothing where it does not.

    Raises:
        Invalid: it has no such volume.
        HostFailed: the host refused.
    """
    if KEY not in files:
        return
    target = files[KEY]
    if os.path.realpath(target) != os.path.realpath(os.path.dirname(target)) + "/" + os.path.basename(target):
        raise Invalid(f"annotation {LINK_LOGS}", target, "a directory, not a link")
    if not os.path.isdir(target):
        raise Invalid(
            f"annotation {LINK_LOGS}", os.path.basename(target), f"an emptyDir volume of the pod: {target} is not there"
        )
    with explain(f"show logs of {log_directory} at {target}"):
        os.makedirs(log_directory, 0o755, exist_ok=True)
        mount.bind(log_directory, target)
        mount.mount("none", target, None, mount.MS_BIND | mount.MS_REMOUNT | _FLAGS)


def unbind(files: Mapping[str, str], log_directory: str) -> None:
    """Take that away again; safe to repeat. Raises HostFailed."""
    target = files.get(KEY, "")
    with explain(f"take away the logs at {target}"):
        while target and _is_same(target, log_directory) and mount.unmount(target, detach=True):
            pass


def link(files: Mapping[str, str], log_directory: str, container_id: str, log_path: str) -> None:
    """Give the log of a container its name by id; nothing where the pod does not ask, or where that is its name already."""
    if KEY in files and log_path not in ("", _name(log_directory, container_id)):
        with explain(f"link the log of container {container_id}"), contextlib.suppress(FileExistsError):
            os.makedirs(log_directory, 0o755, exist_ok=True)
            os.symlink(os.path.relpath(log_path, log_directory), _name(log_directory, container_id))


def unlink(files: Mapping[str, str], log_directory: str, container_id: str) -> None:
    """Take that name away again; safe to repeat."""
    if KEY in files:
        name = _name(log_directory, container_id)
        with explain(f"unlink the log of container {container_id}"):
            if os.path.islink(name):  # else it is the log itself
                os.unlink(name)


def _name(log_directory: str, container_id: str) -> str:
    return os.path.join(log_directory, f"{container_id}.log")


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
