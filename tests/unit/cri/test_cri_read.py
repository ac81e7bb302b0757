"""What requests become, and which field an error names."""

import contextlib
import functools
from typing import Any

import pytest
from cri_random import every_text, messages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.cri import read, read_container
from criollo.cri.pb import api_pb2 as pb
from criollo.cri.signals import SIGNALS, cri_signal, kernel_signal
from criollo.errors import Invalid
from criollo.model.container import Propagation
from criollo.model.pod import IdMapping, NamespaceMode, ProfileType, Protocol, Resources, SecurityProfile

slow = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def pod(**fields: Any) -> pb.PodSandboxConfig:
    return pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="p", uid="u", namespace="n", attempt=2), **fields)


def container(**fields: Any) -> pb.ContainerConfig:
    return pb.ContainerConfig(metadata=pb.ContainerMetadata(name="c"), image=pb.ImageSpec(image="busybox"), **fields)


def sandbox_context(**fields: Any) -> pb.PodSandboxConfig:
    return pod(linux=pb.LinuxPodSandboxConfig(security_context=pb.LinuxSandboxSecurityContext(**fields)))


def context(**fields: Any) -> pb.ContainerConfig:
    return container(linux=pb.LinuxContainerConfig(security_context=pb.LinuxContainerSecurityContext(**fields)))


def refuses(config: Any, field: str) -> str:
    """The config is refused with this field's name; the message."""
    reads = read.pod_config if isinstance(config, pb.PodSandboxConfig) else read_container.container_config
    with pytest.raises(Invalid) as caught:
        reads(config)
    assert caught.value.field == f"config.{field}"
    return str(caught.value)


def test_pod_keeps_what_was_asked() -> None:
    value = read.pod_config(
        pod(
            hostname="web-1",
            log_directory="/var/log/pods/x",
            dns_config=pb.DNSConfig(servers=["10.0.0.10"], searches=["svc.cluster.local"], options=["ndots:5"]),
            port_mappings=[pb.PortMapping(protocol=pb.UDP, container_port=53, host_port=5353, host_ip="::1")],
            labels={"a": "b"},
            annotations={"c": "line\nline"},
            linux=pb.LinuxPodSandboxConfig(cgroup_parent="/kubepods/x", sysctls={"net.ipv4.ip_forward": "1"}),
        )
    )
    assert (value.name, value.uid, value.namespace, value.attempt) == ("p", "u", "n", 2)
    assert value.dns is not None
    assert value.dns.options == ("ndots:5",)
    assert value.ports[0].protocol is Protocol.UDP
    assert value.annotations == {"c": "line\nline"}
    assert value.sysctls == {"net.ipv4.ip_forward": "1"}


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (pb.PodSandboxConfig(), "metadata"),
        (pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata()), "metadata.name"),
        (pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="a/b")), "metadata.name"),
        (pb.PodSandboxConfig(metadata=pb.PodSandboxMetadata(name="a", namespace="..")), "metadata.namespace"),
        (pod(hostname="a\nb"), "hostname"),
        (pod(hostname="x" * 65), "hostname"),
        (pod(log_directory="relative"), "log_directory"),
        (pod(log_directory="/var/../etc"), "log_directory"),
        (pod(dns_config=pb.DNSConfig(servers=["x; rm"])), "dns_config.servers[0]"),
        (pod(dns_config=pb.DNSConfig(searches=["a\nnameserver 6.6.6.6"])), "dns_config.searches[0]"),
        (pod(port_mappings=[pb.PortMapping(container_port=0)]), "port_mappings[0].container_port"),
        (pod(port_mappings=[pb.PortMapping(container_port=1, host_port=65536)]), "port_mappings[0].host_port"),
        (pod(port_mappings=[pb.PortMapping(container_port=1, protocol=9)]), "port_mappings[0].protocol"),
        (pod(port_mappings=[pb.PortMapping(container_port=1, host_ip="fe80::1%x")]), "port_mappings[0].host_ip"),
        (pod(port_mappings=[pb.PortMapping(container_port=1)] * 10_001), "port_mappings"),
        (pod(labels={f"k{n}": "" for n in range(10_001)}), "labels"),
        (pod(annotations={"k": "x" * (2 << 20)}), "annotations"),
        (pod(annotations={"k": "\0"}), "annotations[k]"),
        (pod(linux=pb.LinuxPodSandboxConfig(cgroup_parent="/a/../b")), "linux.cgroup_parent"),
        (pod(linux=pb.LinuxPodSandboxConfig(sysctls={"net.x+y": "1"})), "linux.sysctls key"),
        (pod(linux=pb.LinuxPodSandboxConfig(sysctls={"net.x": "1\n2"})), "linux.sysctls[net.x]"),
        (sandbox_context(run_as_group=pb.Int64Value(value=1)), "linux.security_context.run_as_group"),
        (sandbox_context(run_as_user=pb.Int64Value(value=1 << 31)), "linux.security_context.run_as_user"),
        (sandbox_context(run_as_user=pb.Int64Value(value=-1)), "linux.security_context.run_as_user"),
        (sandbox_context(supplemental_groups_policy=7), "linux.security_context.supplemental_groups_policy"),
        (sandbox_context(namespace_options=pb.NamespaceOption(network=1)), "linux.security_context.namespace_options.network"),
        (sandbox_context(namespace_options=pb.NamespaceOption(pid=3)), "linux.security_context.namespace_options.pid"),
    ],
)
def test_pod_is_refused_by_field(config: pb.PodSandboxConfig, field: str) -> None:
    refuses(config, field)


def _mapping(**fields: int) -> pb.IDMapping:
    return pb.IDMapping(**{"host_id": 100_000, "container_id": 0, "length": 65536, **fields})


def _userns(mode: int = 0, uids: int = 1, gids: int = 1, **fields: int) -> pb.PodSandboxConfig:
    user = pb.UserNamespace(mode=mode, uids=[_mapping(**fields)] * uids, gids=[_mapping()] * gids)
    return sandbox_context(namespace_options=pb.NamespaceOption(userns_options=user))


def test_user_namespace_takes_one_mapping_of_each_kind() -> None:
    user = read.pod_config(_userns()).security.namespaces.user
    assert user is not None
    assert user.uids == (IdMapping(host_id=100_000, container_id=0, length=65536),)


def test_user_namespace_of_the_node_needs_no_mapping() -> None:
    user = read.pod_config(_userns(mode=2, uids=0, gids=0)).security.namespaces.user
    assert user is not None
    assert user.mode is NamespaceMode.NODE


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (_userns(uids=0), "uids"),
        (_userns(uids=2), "uids"),
        (_userns(gids=0), "gids"),
        (_userns(mode=1), "mode"),
        (_userns(mode=3), "mode"),
        (_userns(container_id=1), "uids[0].container_id"),
        (_userns(length=0), "uids[0].length"),
        (_userns(host_id=(1 << 32) - 1), "uids[0].host_id + length"),
    ],
)
def test_user_namespace_is_refused_by_field(config: pb.PodSandboxConfig, field: str) -> None:
    refuses(config, f"linux.security_context.namespace_options.userns_options.{field}")


def test_container_keeps_what_was_asked() -> None:
    value = read_container.container_config(
        container(
            command=["sh", "-c"],
            args=["echo\n$X"],
            envs=[pb.KeyValue(key="X", value="ж=\n".encode())],
            mounts=[pb.Mount(container_path="/data", host_path="/srv", propagation=pb.PROPAGATION_HOST_TO_CONTAINER)],
            devices=[pb.Device(container_path="/dev/x", host_path="/dev/null")],
            log_path="c/0.log",
            stop_signal=pb.SIGNAL_SIGINT,
            CDI_devices=[pb.CDIDevice(name="vendor.com/gpu=0")],
        )
    )
    assert value.env == (("X", "ж=\n"),)
    assert value.args == ("echo\n$X",)
    assert value.mounts[0].propagation is Propagation.HOST_TO_CONTAINER
    assert value.devices[0].permissions == "rwm"
    assert value.stop_signal == 2
    assert value.cdi_devices == ("vendor.com/gpu=0",)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (pb.ContainerConfig(), "metadata"),
        (pb.ContainerConfig(metadata=pb.ContainerMetadata(name="c")), "image.image"),
        (container(args=["a\0b"]), "args[0]"),
        (container(args=["x" * 600_000] * 2), "args"),
        (container(working_dir="tmp"), "working_dir"),
        (container(envs=[pb.KeyValue(key="A=B", value=b"")]), "envs[0].key"),
        (container(envs=[pb.KeyValue(key="", value=b"")]), "envs[0].key"),
        (container(envs=[pb.KeyValue(key="A", value=b"\xff")]), "envs[0].value"),
        (container(envs=[pb.KeyValue(key="A", value=b"\0")]), "envs[0].value"),
        (container(envs=[pb.KeyValue(key="A")] * 10_001), "envs"),
        (container(mounts=[pb.Mount(container_path="/x", host_path="/x")] * 10_001), "mounts"),
        (container(mounts=[pb.Mount(container_path="/", host_path="/x")]), "mounts[0].container_path"),
        (container(mounts=[pb.Mount(container_path="/a/..", host_path="/x")]), "mounts[0].container_path"),
        (container(mounts=[pb.Mount(container_path="x", host_path="/x")]), "mounts[0].container_path"),
        (container(mounts=[pb.Mount(container_path="/x")]), "mounts[0].host_path"),
        (container(mounts=[pb.Mount(container_path="/x", host_path="x")]), "mounts[0].host_path"),
        (container(mounts=[pb.Mount(container_path="/x", host_path="/x", propagation=5)]), "mounts[0].propagation"),
        (container(mounts=[pb.Mount(container_path="/x", host_path="/x", mount_options=["exec"])]), "mounts[0].mount_options"),
        (
            container(mounts=[pb.Mount(container_path="/x", host_path="/x", image=pb.ImageSpec(image="i"))]),
            "mounts[0].host_path",
        ),
        (container(mounts=[pb.Mount(container_path="/x", host_path="/x", image_sub_path="a")]), "mounts[0].image_sub_path"),
        (
            container(mounts=[pb.Mount(container_path="/x", image=pb.ImageSpec(image="i"), image_sub_path="../a")]),
            "mounts[0].image_sub_path",
        ),
        (
            container(devices=[pb.Device(container_path="/dev/x", host_path="/dev/x", permissions="rx")]),
            "devices[0].permissions",
        ),
        (container(devices=[pb.Device(container_path="/dev/x", host_path="/dev/../etc")]), "devices[0].host_path"),
        (container(log_path="/abs"), "log_path"),
        (container(log_path="a/../../b"), "log_path"),
        (container(stop_signal=66), "stop_signal"),
        (context(run_as_group=pb.Int64Value(value=1)), "linux.security_context.run_as_group"),
        (context(run_as_username="a:b"), "linux.security_context.run_as_username"),
        (context(run_as_username="a", run_as_user=pb.Int64Value(value=1)), "linux.security_context.run_as_username"),
        (context(supplemental_groups=[-1]), "linux.security_context.supplemental_groups[0]"),
        (
            context(capabilities=pb.Capability(add_capabilities=["NET ADMIN"])),
            "linux.security_context.capabilities.add_capabilities[0]",
        ),
        (context(masked_paths=["relative"]), "linux.security_context.masked_paths[0]"),
        (context(namespace_options=pb.NamespaceOption(pid=3)), "linux.security_context.namespace_options.target_id"),
        (context(namespace_options=pb.NamespaceOption(target_id="x")), "linux.security_context.namespace_options.target_id"),
        (context(selinux_options=pb.SELinuxOption(type="a:b")), "linux.security_context.selinux_options.type"),
    ],
)
def test_container_is_refused_by_field(config: pb.ContainerConfig, field: str) -> None:
    refuses(config, field)


def test_a_mount_of_an_image_is_read_only_by_definition() -> None:
    spec = pb.ImageSpec(image="f" * 64, user_specified_image="busybox")
    config = container(mounts=[pb.Mount(container_path="/x", image=spec, image_sub_path="a/b", mount_options=["noexec"])])
    (mount,) = read_container.container_config(config).mounts
    assert (mount.image, mount.user_specified_image, mount.image_sub_path) == ("f" * 64, "busybox", "a/b")
    assert mount.readonly
    assert mount.options == ("noexec",)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"recursive_read_only": True}, "recursive read-only mount conflicts with read-write mount"),
        ({"recursive_read_only": True, "readonly": True, "propagation": 1}, "requires private propagation"),
    ],
)
def test_recursive_read_only_needs_readonly_and_no_propagation(fields: dict[str, Any], text: str) -> None:
    mount = pb.Mount(container_path="/x", host_path="/x", **fields)
    assert text in refuses(container(mounts=[mount]), "mounts[0].recursive_read_only")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"seccomp": pb.SecurityProfile()}, SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)),
        ({"seccomp_profile_path": "unconfined"}, SecurityProfile(type=ProfileType.UNCONFINED)),
        ({"seccomp_profile_path": "docker/default"}, SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)),
        ({"seccomp_profile_path": "localhost/a/b.json"}, SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="a/b.json")),
        (
            {"seccomp": pb.SecurityProfile(profile_type=1), "seccomp_profile_path": "x"},
            SecurityProfile(type=ProfileType.UNCONFINED),
        ),
    ],
)
def test_profile_is_read_from_the_new_field_else_the_old(fields: dict[str, Any], expected: SecurityProfile | None) -> None:
    assert read_container.container_config(context(**fields)).security.seccomp == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("runtime/default", SecurityProfile(type=ProfileType.RUNTIME_DEFAULT)),
        ("unconfined", SecurityProfile(type=ProfileType.UNCONFINED)),
        ("localhost/mine", SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="mine")),
        ("mine", SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="mine")),
    ],
)
def test_the_old_field_of_apparmor_may_leave_out_localhost(text: str, expected: SecurityProfile | None) -> None:
    assert read_container.container_config(context(apparmor_profile=text)).security.apparmor == expected


@pytest.mark.parametrize("ref", ["mine", "localhost/mine"])
def test_the_new_field_of_apparmor_may_have_localhost(ref: str) -> None:
    read = read_container.container_config(context(apparmor=pb.SecurityProfile(profile_type=2, localhost_ref=ref)))
    assert read.security.apparmor == SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="mine")


def test_the_new_field_of_seccomp_is_a_path() -> None:
    read = read_container.container_config(context(seccomp=pb.SecurityProfile(profile_type=2, localhost_ref="localhost/a")))
    assert read.security.seccomp == SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="localhost/a")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seccomp": pb.SecurityProfile(profile_type=2)}, "seccomp.localhost_ref"),
        ({"seccomp": pb.SecurityProfile(profile_type=1, localhost_ref="x")}, "seccomp.localhost_ref"),
        ({"seccomp": pb.SecurityProfile(profile_type=9)}, "seccomp.profile_type"),
        ({"seccomp": pb.SecurityProfile(profile_type=2, localhost_ref="../x")}, "seccomp.localhost_ref"),
        ({"seccomp_profile_path": "unconfind"}, "seccomp_profile_path"),
        ({"apparmor_profile": "localhost/"}, "apparmor_profile"),
    ],
)
def test_unknown_profiles_are_refused(fields: dict[str, Any], field: str) -> None:
    refuses(context(**fields), f"linux.security_context.{field}")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cpu_quota": -2}, "cpu_quota"),
        ({"cpu_period": 2_000_000}, "cpu_period"),
        ({"memory_limit_in_bytes": -5}, "memory_limit_in_bytes"),
        ({"oom_score_adj": 1001}, "oom_score_adj"),
        ({"cpuset_cpus": "0;1"}, "cpuset_cpus"),
        ({"hugepage_limits": [pb.HugepageLimit(page_size="../2MB")]}, "hugepage_limits.page_size"),
        ({"unified": {"../memory.high": "1"}}, "unified key"),
        ({"unified": {"memory": "1"}}, "unified key"),
    ],
)
def test_resources_are_refused_by_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_container.new_resources(pb.UpdateContainerResourcesRequest(linux=pb.LinuxContainerResources(**fields)))
    assert caught.value.field == f"linux.{field}"


def test_a_pods_new_size_is_read_by_parts_and_not_empty() -> None:
    some = pb.LinuxContainerResources(cpu_shares=5)
    request = pb.UpdatePodSandboxResourcesRequest
    assert read.new_pod_resources(request(overhead=some)) == (Resources(cpu_shares=5), None)
    assert read.new_pod_resources(request(resources=some)) == (None, Resources(cpu_shares=5))
    with pytest.raises(Invalid, match="overhead, resources"):
        read.new_pod_resources(request())
    with pytest.raises(Invalid, match=r"overhead\.cpu_shares"):
        read.new_pod_resources(request(overhead=pb.LinuxContainerResources(cpu_shares=-5)))


def test_capabilities_get_their_prefix() -> None:
    given = context(capabilities=pb.Capability(add_capabilities=["net_admin", "CAP_KILL", "all"]))
    assert read_container.container_config(given).security.capabilities.add == ("CAP_NET_ADMIN", "CAP_KILL", "ALL")


def test_every_signal_of_the_cri_has_its_kernel_number() -> None:
    assert len(SIGNALS) == 65
    assert SIGNALS[pb.SIGNAL_SIGTERM] == 15
    assert SIGNALS[pb.SIGNAL_SIGKILL] == 9
    assert SIGNALS[pb.SIGNAL_SIGCLD] == SIGNALS[pb.SIGNAL_SIGCHLD] == 17
    assert SIGNALS[pb.SIGNAL_SIGSTKFLT] == 16
    assert SIGNALS[pb.SIGNAL_SIGRTMIN] == 34
    assert SIGNALS[pb.SIGNAL_SIGRTMINPLUS3] == 37
    assert SIGNALS[pb.SIGNAL_SIGRTMAXMINUS14] == 50
    assert SIGNALS[pb.SIGNAL_SIGRTMAX] == 64
    assert set(SIGNALS.values()) == set(range(1, 32)) | set(range(34, 65))
    assert kernel_signal(0, "x") == 0


@pytest.mark.parametrize("kernel", sorted(set(range(1, 32)) | set(range(34, 65))))
def test_signals_survive_the_way_back(kernel: int) -> None:
    assert kernel_signal(cri_signal(kernel), "x") == kernel


def _set(message: Any, path: str, value: str) -> None:
    *parents, name = path.split(".")
    setattr(functools.reduce(getattr, parents, message), name, value)


@pytest.mark.parametrize("path", [p for p in every_text(pb.PodSandboxConfig.DESCRIPTOR) if not p.startswith("windows")])
def test_no_text_of_a_pod_takes_nul(path: str) -> None:
    config = pod()
    _set(config, path, "a\0b")
    with pytest.raises(Invalid):
        read.pod_config(config)


@pytest.mark.parametrize("path", [p for p in every_text(pb.ContainerConfig.DESCRIPTOR) if not p.startswith("windows")])
def test_no_text_of_a_container_takes_nul(path: str) -> None:
    config = container()
    _set(config, path, "a\0b")
    with pytest.raises(Invalid):
        read_container.container_config(config)


@slow
@given(messages(pb.PodSandboxConfig))
def test_random_pods_are_read_or_invalid(config: pb.PodSandboxConfig) -> None:
    with contextlib.suppress(Invalid):
        assert "\0" not in repr(read.pod_config(config))


@slow
@given(messages(pb.ContainerConfig))
def test_random_containers_are_read_or_invalid(config: pb.ContainerConfig) -> None:
    with contextlib.suppress(Invalid):
        value = read_container.container_config(config)
        assert all(mount.container_path.startswith("/") for mount in value.mounts)


@slow
@given(st.sampled_from([pb.LinuxContainerSecurityContext, pb.Mount, pb.LinuxContainerResources, pb.Device]).flatmap(messages))
def test_random_parts_of_a_container_are_read_or_invalid(part: Any) -> None:
    config = container()
    kind = type(part).__name__
    if kind == "LinuxContainerSecurityContext":
        config.linux.security_context.CopyFrom(part)
    elif kind == "LinuxContainerResources":
        config.linux.resources.CopyFrom(part)
    else:
        getattr(config, {"Mount": "mounts", "Device": "devices"}[kind]).append(part)
    with contextlib.suppress(Invalid):
        read_container.container_config(config)
