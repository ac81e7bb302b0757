"""From a manifest to what the runtime is asked for: pure, no files, no clock.

    plan = make_plan(pod, Origin(uid=…, made_by="play", log_dir=…, volumes_dir=…, resolv_conf=…))

The messages are those kubelet would send for the same manifest, so both get the same pod.
"""

import uuid
from collections.abc import Iterable
from typing import Final, NamedTuple

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.kpod import manifest
from criollo.kpod.confinement import selinux
from criollo.kpod.containerspec import container_config, namespaces, pod_labels
from criollo.kpod.manifest import Pod

MADE_BY_LABEL: Final = "io.criollo.kpod"
EMPTY_DIR: Final = "emptyDir"  # a volume that kpod makes
_PROTOCOLS: Final = {"TCP": pb.TCP, "UDP": pb.UDP, "SCTP": pb.SCTP}
_MAX_PORT: Final = 65535
_UIDS: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "pods.kpod.criollo.invalid")
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_HOST_PATH_TYPES: Final = (
    "",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
    "CharDevice",
    "BlockDevice",
)


class Origin(NamedTuple):
    """What a plan needs to know beside the manifest. Directories are absolute."""

    uid: str
    made_by: str  # "play" or "run"
    log_dir: str
    volumes_dir: str  # of this pod alone
    resolv_conf: str = ""  # text of the node's


class VolumePlan(NamedTuple):
    """A source on the host, and what it must be: a type of hostPath, or EMPTY_DIR."""

    path: str
    type: str


class ContainerPlan(NamedTuple):
    """A container to create, in this order. `runs_to_end`: the next one waits until it has exited with 0."""

    config: pb.ContainerConfig
    image: str
    pull: str  # Always, IfNotPresent, Never
    runs_to_end: bool
    must_not_be_root: bool


class PodPlan(NamedTuple):
    """A pod to run. `warnings` are lines for the person, one each."""

    sandbox: pb.PodSandboxConfig
    handler: str
    volumes: tuple[VolumePlan, ...]
    containers: tuple[ContainerPlan, ...]
    warnings: tuple[str, ...]
    grace_s: int


def pod_uid(namespace: str, name: str) -> str:
    """The uid of a played pod: always the same for the same name, so that playing twice finds it."""
    return str(uuid.uuid5(_UIDS, f"{namespace}/{name}"))


def make_plan(pod: Pod, origin: Origin) -> PodPlan:
    """The plan of a manifest.

    Raises:
        Invalid: a value that cannot be; the message has its path.
    """
    warnings: list[str] = []
    sources = {volume.name: _source(volume, index, origin) for index, volume in enumerate(pod.spec.volumes)}
    volumes = {name: source.path if source else None for name, source in sources.items()}
    lists = (("initContainers", pod.spec.init_containers), ("containers", pod.spec.containers))
    containers = []
    for field, parts in lists:
        for index, container in enumerate(parts):
            config = container_config(pod, container, f"spec.{field}[{index}]", uid=origin.uid, volumes=volumes)
            warnings += config.warnings
            config.message.labels[MADE_BY_LABEL] = origin.made_by
            containers.append(_container(pod, container, config.message, is_init=field == "initContainers"))
    if pod.spec.restart_policy not in ("", "Never"):
        warnings.append(f"spec.restartPolicy {pod.spec.restart_policy}: nothing restarts containers here")
    if pod.spec.termination_grace_period_seconds < 0:
        raise Invalid("spec.terminationGracePeriodSeconds", pod.spec.termination_grace_period_seconds, "0 or more")
    return PodPlan(
        sandbox=_sandbox(pod, origin),
        handler=pod.spec.runtime_class_name,
        volumes=tuple(source for source in sources.values() if source),
        containers=tuple(containers),
        warnings=tuple(warnings),
        grace_s=pod.spec.termination_grace_period_seconds,
    )


def _container(pod: Pod, container: manifest.Container, message: pb.ContainerConfig, *, is_init: bool) -> ContainerPlan:
    policy = container.image_pull_policy or _usual_policy(container.image)
    if policy not in _PULL_POLICIES:
        raise Invalid(f"imagePullPolicy of container {container.name}", policy, " or ".join(_PULL_POLICIES))
    asked = container.security_context.run_as_non_root
    return ContainerPlan(
        config=message,
        image=container.image,
        pull=policy,
        runs_to_end=is_init and container.restart_policy != "Always",
        must_not_be_root=bool(pod.spec.security_context.run_as_non_root if asked is None else asked),
    )


def _usual_policy(image: str) -> str:
    """Always for `latest`, said or unsaid, else IfNotPresent. Source: Kubernetes, Images, imagePullPolicy."""
    name, _, digest = image.partition("@")
    _, colon, tag = name.rpartition(":")
    tag = tag if colon and "/" not in tag else "latest"
    return "Always" if tag == "latest" and not digest else "IfNotPresent"


def _sandbox(pod: Pod, origin: Origin) -> pb.PodSandboxConfig:
    meta, spec = pod.metadata, pod.spec
    message = pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=meta.name, uid=origin.uid, namespace=meta.namespace),
        hostname="" if spec.host_network else spec.hostname or meta.name[:63].rstrip("-."),
        log_directory=origin.log_dir,
        labels={**meta.labels, **pod_labels(pod, origin.uid), MADE_BY_LABEL: origin.made_by},
        annotations=meta.annotations,
        port_mappings=[] if spec.host_network else list(_ports(spec)),
    )
    if spec.dns_config is not None:
        message.dns_config.CopyFrom(_dns(spec.dns_config, origin.resolv_conf if spec.dns_policy != "None" else ""))
    security = message.linux.security_context
    security.namespace_options.CopyFrom(namespaces(spec))
    security.privileged = any(each.security_context.privileged for each in (*spec.init_containers, *spec.containers))
    security.supplemental_groups.extend(spec.security_context.supplemental_groups)
    if (label := spec.security_context.se_linux_options) is not None:
        security.selinux_options.CopyFrom(selinux(label))
    message.linux.sysctls.update({each.name: each.value for each in spec.security_context.sysctls})
    return message


def _ports(spec: manifest.Spec) -> Iterable[pb.PortMapping]:
    for index, container in enumerate(spec.containers):
        for number, port in enumerate(container.ports):
            place = f"spec.containers[{index}].ports[{number}]"
            if port.protocol not in _PROTOCOLS:
                raise Invalid(f"{place}.protocol", port.protocol, "TCP, UDP or SCTP")
            if not 1 <= port.container_port <= _MAX_PORT or not 0 <= port.host_port <= _MAX_PORT:
                raise Invalid(place, f"{port.host_port}:{port.container_port}", f"ports from 1 to {_MAX_PORT}")
            if port.host_port:
                yield pb.PortMapping(
                    protocol=_PROTOCOLS[port.protocol],
                    container_port=port.container_port,
                    host_port=port.host_port,
                    host_ip=port.host_ip,
                )


def _dns(config: manifest.DnsConfig, resolv_conf: str) -> pb.DNSConfig:
    """The manifest's servers, searches and options after those of the node's resolv.conf."""
    lines = [line.split() for line in resolv_conf.splitlines()]
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    searches = next((words[1:] for words in reversed(lines) if words and words[0] == "search"), [])
    options = next((words[1:] for words in reversed(lines) if words and words[0] == "options"), [])
    ours = [f"{option.name}:{option.value}" if option.value else option.name for option in config.options]
    named = {option.partition(":")[0] for option in ours}
    return pb.DNSConfig(
        servers=list(dict.fromkeys((*servers, *config.nameservers))),
        searches=list(dict.fromkeys((*searches, *config.searches))),
        options=[*(option for option in options if option.partition(":")[0] not in named), *ours],
    )


def _source(volume: manifest.Volume, index: int, origin: Origin) -> VolumePlan | None:
    """Where a volume lies; None when its kind is not supported."""
    place = f"spec.volumes[{index}]"
    if volume.host_path is not None and volume.empty_dir is not None:
        raise Invalid(place, "hostPath and emptyDir", "one source")
    if volume.host_path is not None:
        path, kind = volume.host_path.path, volume.host_path.type
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise Invalid(f"{place}.hostPath.path", path, "an absolute path without '..'")
        if kind not in _HOST_PATH_TYPES:
            raise Invalid(f"{place}.hostPath.type", kind, ", ".join(filter(None, _HOST_PATH_TYPES)))
        return VolumePlan(path, kind)
    if volume.empty_dir is not None:
        return VolumePlan(f"{origin.volumes_dir}/{volume.name}", EMPTY_DIR)
    return None
