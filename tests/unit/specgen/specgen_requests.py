"""Requests to build specs from; every test changes what it is about."""

from typing import Any

from criollo.model.container import ContainerConfig, ContainerSecurity, ImageSpec
from criollo.model.pod import NamespaceMode, Namespaces, PodConfig, PodSecurity
from criollo.oci.runtime_spec import UNLIMITED
from criollo.security.capabilities import KNOWN
from criollo.specgen.host import HostFacts
from criollo.specgen.request import ImageDefaults, PodView, SpecRequest
from criollo.specgen.users import ResolvedUser

HOST = HostFacts(
    cgroup_v2=True,
    rlimits={"nofile": UNLIMITED},
    has_swap_accounting=True,
    hugepage_sizes=("2MB", "1GB"),
    thermal_paths=("/sys/devices/system/cpu/cpu0/thermal_throttle",),
    has_mqueue=True,
)
WEAK_HOST = HostFacts(
    cgroup_v2=False, capabilities=frozenset(KNOWN) - {"CAP_SYS_RESOURCE"}, oom_score_adj=-5, rlimits={"nofile": 4096}
)
OWN_PIDS = Namespaces(pid=NamespaceMode.CONTAINER)


def security(**fields: Any) -> ContainerSecurity:
    return ContainerSecurity(**{"namespaces": OWN_PIDS, **fields})


def config(**fields: Any) -> ContainerConfig:
    return ContainerConfig(**{"name": "web", "image": ImageSpec(image="i"), "security": security(), **fields})


def pod(namespaces: Namespaces = OWN_PIDS, **fields: Any) -> PodView:
    metadata = fields.pop("annotations", {})
    settings = PodConfig(
        name="front", uid="11-22", namespace="shop", annotations=metadata, security=PodSecurity(namespaces=namespaces)
    )
    given = {
        "id": "a" * 64,
        "config": settings,
        "handler": "crun",
        "hostname": "front",
        "network_ns": "/run/netns/n",
        "ipc_ns": "/run/ipcns/i",
        "uts_ns": "/run/utsns/u",
        "resolv_conf": "/run/pod/resolv.conf",
        "hostname_file": "/run/pod/hostname",
        "shm": "/run/pod/shm",
    }
    return PodView(**{**given, **fields})


def request(**fields: Any) -> SpecRequest:
    given = {
        "container_id": "c" * 64,
        "container_name": "k8s_web_front_shop_11-22_0",
        "config": config(),
        "pod": pod(),
        "image": ImageDefaults(entrypoint=("/entry",), cmd=("serve",), env=("PATH=/bin", "LANG=C")),
        "user": ResolvedUser(),
        "rootfs": "/var/lib/criollo/rootfs/c/merged",
        "cgroups_path": "/pods/crio-c",
        "image_name": "registry.example/web:1",
        "log_path": "/var/log/pods/web/0.log",
    }
    return SpecRequest(**{**given, **fields})
