"""Namespaces, devices, masks and cgroup values."""

import json
from typing import Any

import pytest
from specgen_requests import HOST, WEAK_HOST, config, pod, request, security

from criollo.errors import Invalid, WrongState
from criollo.model.pod import HugepageLimit, IdMapping, NamespaceMode, Namespaces, Resources
from criollo.oci import runtime_spec
from criollo.specgen import linux, resources
from criollo.specgen.host import HostFacts
from criollo.specgen.request import Defaults, DeviceNode

NODE, POD, TARGET = NamespaceMode.NODE, NamespaceMode.POD, NamespaceMode.TARGET
MAPPED = (IdMapping(host_id=100000, container_id=0, length=65536),)
FUSE = DeviceNode(path="/dev/fuse", host_path="/dev/fuse", type="c", major=10, minor=229, mode=0o666)
KMSG = DeviceNode(path="/dev/kmsg", host_path="/dev/kmsg", type="c", major=1, minor=11)


def spaces(host: HostFacts = HOST, **fields: Any) -> dict[str, str]:
    return {entry.type: entry.path for entry in linux.namespaces(request(**fields), host)}


def test_container_joins_its_pod() -> None:
    expected = {"mount": "", "network": "/run/netns/n", "ipc": "/run/ipcns/i", "uts": "/run/utsns/u", "pid": "", "cgroup": ""}
    assert spaces() == expected


def test_cgroup_namespace_is_private_on_v2_except_for_privileged() -> None:
    assert "cgroup" not in spaces(WEAK_HOST)
    assert "cgroup" not in spaces(config=config(security=security(privileged=True)))


def test_host_namespaces_are_absent() -> None:
    host = Namespaces(network=NODE, pid=NODE, ipc=NODE)
    found = spaces(pod=pod(host, network_ns="", ipc_ns="", uts_ns=""), config=config(security=security(namespaces=host)))
    assert set(found) == {"mount", "cgroup"}


def test_container_cannot_leave_the_pods_network_or_ipc() -> None:
    asked = Namespaces(network=NODE, pid=NamespaceMode.CONTAINER, ipc=NODE)
    found = spaces(config=config(security=security(namespaces=asked)))
    assert (found["network"], found["ipc"]) == ("/run/netns/n", "/run/ipcns/i")


@pytest.mark.parametrize(
    ("mode", "where"), [(POD, {"pod": pod(pid_ns="/proc/7/ns/pid")}), (TARGET, {"target_pid_ns": "/proc/7/ns/pid"})]
)
def test_shared_pid_namespace_is_joined(mode: NamespaceMode, where: dict[str, Any]) -> None:
    asked = config(security=security(namespaces=Namespaces(pid=mode)))
    assert spaces(config=asked, **where)["pid"] == "/proc/7/ns/pid"
    with pytest.raises(WrongState, match="pid namespace"):
        spaces(config=asked)


def test_user_namespace_is_joined_and_mapped() -> None:
    built = linux.linux(request(pod=pod(user_ns="/run/userns/x", uids=MAPPED, gids=MAPPED)), HOST, "")
    assert runtime_spec.Namespace(type="user", path="/run/userns/x") in built.namespaces
    assert built.uid_mappings == (runtime_spec.IdMapping(container_id=0, host_id=100000, size=65536),)


def test_mappings_are_left_out_where_the_runtime_asks_the_namespace() -> None:
    asks = Defaults(repeats_mappings=False)
    joined = linux.linux(request(pod=pod(user_ns="/run/userns/x", uids=MAPPED, gids=MAPPED), defaults=asks), HOST, "")
    assert (joined.uid_mappings, joined.gid_mappings) == ((), ())
    made = linux.linux(request(pod=pod(uids=MAPPED, gids=MAPPED), defaults=asks), HOST, "")
    assert len(made.uid_mappings) == len(made.gid_mappings) == 1


def test_masks_are_the_requests_plus_ours_or_none() -> None:
    asked = security(masked_paths=("/proc/kcore", "/opt/x"), readonly_paths=("/proc/sys",))
    built = linux.linux(request(config=config(security=asked)), HOST, "")
    assert set(built.masked_paths) == {*linux.MASKED, "/opt/x", *HOST.thermal_paths}
    assert built.readonly_paths == ("/proc/sys",)
    assert linux.linux(request(), HOST, "").masked_paths == ()
    privileged = security(masked_paths=("/proc/kcore",), readonly_paths=("/proc/sys",), privileged=True)
    open_built = linux.linux(request(config=config(security=privileged)), HOST, "")
    assert (open_built.masked_paths, open_built.readonly_paths) == ((), ())


@pytest.mark.parametrize(
    "path",
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
     "/sys/devices/virtual/powercap", "/proc/acpi", "/proc/asound", "/proc/latency_stats", "/proc/timer_stats"],
)  # fmt: skip
def test_places_that_leak_stay_on_the_list(path: str) -> None:
    assert path in linux.MASKED


def test_limits_are_given_only_where_asked() -> None:
    assert resources.limits(Resources(), host=HOST) == runtime_spec.Resources()
    got = resources.limits(Resources(cpu_quota_us=-1, cpuset_cpus="0-1,3"), host=HOST)
    assert got.cpu == runtime_spec.Cpu(quota=-1, cpus="0-1,3")
    weak = resources.limits(Resources(cpu_quota_us=-1, cpuset_cpus="0"), host=WEAK_HOST)
    assert weak.cpu == runtime_spec.Cpu(cpus="0")
    assert got.memory is None


@pytest.mark.parametrize(
    ("limit", "swap", "host", "expected"),
    [
        (64, 0, HOST, runtime_spec.Memory(limit=64, swap=64)),
        (64, 80, HOST, runtime_spec.Memory(limit=64, swap=80)),
        (64, -1, HOST, runtime_spec.Memory(limit=64, swap=-1)),
        (64, 80, WEAK_HOST, runtime_spec.Memory(limit=64)),
        (0, 80, HOST, None),
        (-1, 0, HOST, runtime_spec.Memory(limit=-1, swap=-1)),
    ],
)
def test_swap_follows_the_limit_and_the_host(limit: int, swap: int, host: HostFacts, expected: object) -> None:
    assert resources.limits(Resources(memory_limit_bytes=limit, memory_swap_limit_bytes=swap), host=host).memory == expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"memory_limit_bytes": 64, "memory_swap_limit_bytes": 63}, "cannot be lower than memory limit"),
        ({"memory_limit_bytes": 64, "memory_swap_limit_bytes": -2}, "swap"),
        ({"memory_limit_bytes": -2}, "memory_limit"),
        ({"memory_limit_bytes": 9}, "too low"),
        ({"cpu_shares": -1}, "cpu_shares"),
        ({"cpu_quota_us": -2}, "cpu_quota"),
        ({"cpu_period_us": 1 << 63}, "cpu_period"),
        ({"cpuset_cpus": "0-"}, "cpuset_cpus"),
        ({"cpuset_mems": "0\n1"}, "cpuset_mems"),
        ({"hugepage_limits": (HugepageLimit(page_size="3MB", limit_bytes=1),)}, "2MB, 1GB"),
        ({"hugepage_limits": (HugepageLimit(page_size="2MB", limit_bytes=-1),)}, "bytes"),
        ({"unified": {"../x": "1"}}, "memory.high"),
        ({"unified": {"cgroup.procs": "1"}}, "memory.high"),
        ({"unified": {"memory.high": "1\0"}}, "NUL"),
    ],
)
def test_bad_limits_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        resources.limits(Resources(**fields), host=HOST, min_memory_bytes=10)


def test_hugepages_are_those_of_the_host() -> None:
    asked = Resources(
        hugepage_limits=(HugepageLimit(page_size="2MB", limit_bytes=0), HugepageLimit(page_size="64KB", limit_bytes=0))
    )
    assert resources.limits(asked, host=HOST).hugepage_limits == (runtime_spec.HugepageLimit(page_size="2MB", limit=0),)
    assert resources.limits(asked, host=WEAK_HOST).hugepage_limits == ()


def test_unified_needs_v2() -> None:
    asked = Resources(unified={"memory.high": "10M"})
    assert resources.limits(asked, host=HOST).unified == {"memory.high": "10M"}
    with pytest.raises(Invalid, match="cgroup v1"):
        resources.limits(asked, host=WEAK_HOST)


def test_pids_limit_is_written_only_above_zero() -> None:
    assert resources.pids(7, HOST) == runtime_spec.Pids(limit=7)
    assert resources.pids(0, HOST) is resources.pids(-1, HOST) is None


def test_update_is_json_with_only_what_changes() -> None:
    asked = Resources(cpu_shares=512, memory_limit_bytes=1 << 26)
    assert json.loads(resources.resources_update(asked, host=HOST)) == {
        "memory": {"limit": 1 << 26, "swap": 1 << 26},
        "cpu": {"shares": 512},
    }
