"""What the builder of specs is told of a container: its image's wishes, its pod as it sees it, where its log goes. Pure."""

import os
from pathlib import Path

from criollo.errors import Invalid
from criollo.model.container import ContainerConfig
from criollo.model.pod import Pod
from criollo.oci.image_spec import ImageConfig
from criollo.specgen.request import ImageDefaults, PodView
from criollo.storage.base import Mapped


def image_defaults(image: ImageConfig) -> ImageDefaults:
    """What the image says about running it."""
    config = image.config
    return ImageDefaults(
        user=config.user,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        working_dir=config.working_dir,
        stop_signal=config.stop_signal,
        volumes=tuple(config.volumes),
    )


def pod_view(pod: Pod) -> PodView:
    """What a container needs to know of its pod, from the pod's record."""
    user = pod.config.security.namespaces.user
    return PodView(
        id=pod.id,
        config=pod.config,
        handler=pod.handler,
        hostname=pod.hostname,
        network_ns=pod.namespaces.get("net", ""),
        ipc_ns=pod.namespaces.get("ipc", ""),
        uts_ns=pod.namespaces.get("uts", ""),
        user_ns=pod.namespaces.get("user", ""),
        pid_ns=pod.namespaces.get("pid", ""),
        uids=user.uids if user is not None and pod.namespaces.get("user") else (),
        gids=user.gids if user is not None and pod.namespaces.get("user") else (),
        resolv_conf=pod.files.get("resolv.conf", ""),
        hostname_file=pod.files.get("hostname", ""),
        hosts=pod.files.get("hosts", ""),
        shm=pod.files.get("shm", ""),
        container_env=pod.files.get("containerenv", ""),
        cgroup_parent=pod.cgroup_parent,
        ips=pod.ips,
    )


def mapped_for(pod: Pod) -> Mapped | None:
    """The pod's user namespace, for its root filesystems; None when it has the host's."""
    user = pod.user_namespace
    return None if user is None else Mapped(Path(pod.namespaces["user"]), user.uids, user.gids)


def log_path(pod: Pod, config: ContainerConfig, container_id: str) -> str:
    """Where the log goes: the file that the client names, else one with the container's id, in the pod's directory.

    Raises:
        Invalid: it would leave the pod's log directory.
    """
    if not pod.logs:
        return ""  # its record is of a version that gave such a pod no logs
    directory = os.path.normpath(pod.logs)
    path = os.path.normpath(os.path.join(directory, config.log_path or f"{container_id}.log"))
    if not path.startswith(directory.rstrip("/") + "/"):
        raise Invalid("config.log_path", config.log_path, "a path below the pod's log directory")
    return path
