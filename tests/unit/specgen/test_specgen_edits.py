"""Edits of CDI devices in a spec."""

from typing import Any

import pytest
from specgen_requests import HOST, config, pod, request, security

from criollo.errors import Invalid, Unsupported
from criollo.model.edits import EditedNode, Edits
from criollo.model.pod import IdMapping
from criollo.oci import runtime_spec
from criollo.specgen.build import build
from criollo.specgen.request import Defaults, DeviceNode
from criollo.specgen.users import ResolvedUser

MAPPED = (IdMapping(host_id=100000, container_id=0, length=1000),)
NODE = EditedNode(path="/dev/v0", host_path="/dev/null", type="c", major=1, minor=3, mode=0o600, permissions="rw")
HOOK = runtime_spec.Hook(path="/h", env=("A=b",))


def made(edits: Edits, **fields: Any) -> runtime_spec.Spec:
    return build(request(edits=edits, **fields), HOST).spec


def linux(spec: runtime_spec.Spec) -> runtime_spec.Linux:
    assert spec.linux is not None
    return spec.linux


def process(spec: runtime_spec.Spec) -> runtime_spec.Process:
    assert spec.process is not None
    return spec.process


def rules(spec: runtime_spec.Spec) -> tuple[runtime_spec.DeviceRule, ...]:
    resources = linux(spec).resources
    assert resources is not None
    return resources.devices


def test_variables_take_the_place_of_others() -> None:
    env = process(made(Edits(env=("LANG=xx", "NEW=1")))).env
    assert "LANG=xx" in env
    assert "LANG=C" not in env
    assert "NEW=1" in env


def test_a_node_comes_with_its_rule_and_belongs_to_the_user() -> None:
    spec = made(Edits(nodes=(NODE,)), user=ResolvedUser(uid=5, gid=6))
    (device,) = linux(spec).devices
    assert (device.path, device.major, device.minor, device.file_mode, device.uid, device.gid) == ("/dev/v0", 1, 3, 0o600, 5, 6)
    assert not rules(spec)[0].allow
    assert rules(spec)[-1] == runtime_spec.DeviceRule(allow=True, type="c", major=1, minor=3, access="rw")


def test_a_node_takes_the_place_of_one_at_its_path() -> None:
    old = DeviceNode(path="/dev/v0", host_path="/dev/zero", type="c", major=1, minor=5)
    assert [each.minor for each in linux(made(Edits(nodes=(NODE,)), devices=(old,))).devices] == [3]


def test_a_pipe_has_no_rule() -> None:
    pipe = EditedNode(path="/dev/p", host_path="/run/p", type="p")
    spec = made(Edits(nodes=(pipe,)))
    assert [each.type for each in linux(spec).devices] == ["p"]
    assert [each.allow for each in rules(spec)] == [False]


def test_privileged_needs_no_further_rule() -> None:
    assert [rule.type for rule in rules(made(Edits(nodes=(NODE,)), config=config(security=security(privileged=True))))] == [""]


def test_a_user_namespace_gets_the_hosts_node_bound() -> None:
    spec = made(Edits(nodes=(NODE,)), pod=pod(uids=MAPPED, gids=MAPPED, user_ns="/run/u"))
    assert linux(spec).devices == ()
    (mount,) = [each for each in spec.mounts if each.destination == "/dev/v0"]
    assert (mount.source, mount.type) == ("/dev/null", "bind")
    assert rules(spec)[-1].minor == 3


@pytest.mark.parametrize("path", ["/proc/x", "/sys/x"])
def test_a_node_among_the_kernels_files_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match=path):
        made(Edits(nodes=(EditedNode(path=path, host_path="/dev/null", type="c"),)))


def test_mounts_replace_and_stay_ordered() -> None:
    mount = runtime_spec.Mount(destination="/etc/resolv.conf", type="bind", source="/x", options=("rbind",))
    deep = runtime_spec.Mount(destination="/a/b/c/d", type="bind", source="/y", options=("rbind",))
    spec = made(Edits(mounts=(deep, mount)))
    destinations = [each.destination for each in spec.mounts]
    assert destinations.count("/etc/resolv.conf") == 1
    assert destinations[-1] == "/a/b/c/d"
    assert [each.source for each in spec.mounts if each.destination == "/etc/resolv.conf"] == ["/x"]


def test_hooks_follow_those_of_the_node() -> None:
    own = runtime_spec.Hooks(poststart=(runtime_spec.Hook(path="/own", env=()),))
    spec = made(Edits(hooks=runtime_spec.Hooks(poststart=(HOOK,), create_runtime=(HOOK,))), hooks=own)
    assert spec.hooks is not None
    assert [each.path for each in spec.hooks.poststart] == ["/own", "/h"]
    assert spec.has_poststart
    assert made(Edits(env=("A=1",))).hooks is None


def test_groups_are_added_once_and_must_exist() -> None:
    user = ResolvedUser(uid=5, gid=6, groups=(6, 44))
    assert process(made(Edits(gids=(44, 45)), user=user)).user.additional_gids == (6, 44, 45)
    with pytest.raises(Invalid, match="additionalGids"):
        made(Edits(gids=(5000,)), pod=pod(uids=MAPPED, gids=MAPPED, user_ns="/run/u"))


def test_interfaces_move_where_the_runtime_can() -> None:
    edits = Edits(net_devices={"eth7": "net0"}, net_devices_of=("a/b=c",))
    with pytest.raises(
        Unsupported, match=r"eth7 of CDI device a/b=c .* its runtime, runc 1\.1\.5, does not know linux\.netDevices"
    ):
        made(edits, defaults=Defaults(runtime="runc 1.1.5"))
    moved = linux(made(edits, defaults=Defaults(supports_net_devices=True))).net_devices
    assert moved == {"eth7": runtime_spec.NetDevice(name="net0")}


def test_the_class_of_a_device_wins() -> None:
    group = runtime_spec.IntelRdt(clos_id="g", schemata=("MB:0=1",), enable_monitoring=True)
    assert linux(made(Edits(intel_rdt=group))).intel_rdt == group
    encoded = runtime_spec.encode(made(Edits(intel_rdt=group)))
    assert b'"intelRdt":{"closID":"g","schemata":["MB:0=1"],"enableMonitoring":true}' in encoded
