"""Devices of a container: nodes, rules, and who may ask for which."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from specgen_requests import config, pod, request, security

from criollo.errors import Denied, Invalid
from criollo.model.container import ContainerSecurity, Device
from criollo.model.pod import IdMapping
from criollo.oci import runtime_spec
from criollo.specgen import devices
from criollo.specgen.request import Defaults, DeviceNode

MAPPED = (IdMapping(host_id=100000, container_id=0, length=65536),)
FUSE = DeviceNode(path="/dev/fuse", host_path="/dev/fuse", type="c", major=10, minor=229, mode=0o666)
KMSG = DeviceNode(path="/dev/kmsg", host_path="/dev/kmsg", type="c", major=1, minor=11)


def test_devices_begin_with_deny_all_and_last_of_a_path_wins() -> None:
    other = DeviceNode(path="/dev/fuse", host_path="/dev/kmsg", type="c", major=1, minor=11, permissions="r")
    nodes, rules = devices.devices(request(devices=(FUSE, other)))
    assert rules[0] == runtime_spec.DeviceRule(allow=False, access="rwm")
    assert [(node.path, node.major) for node in nodes] == [("/dev/fuse", 1)]
    assert rules[1:] == (runtime_spec.DeviceRule(allow=True, type="c", major=1, minor=11, access="r"),)


def test_user_namespace_makes_no_devices_but_allows_them() -> None:
    fields: dict[str, Any] = {"devices": (FUSE,), "pod": pod(uids=MAPPED, gids=MAPPED)}
    assert devices.devices(request(**fields)) == ((), devices.devices(request(devices=(FUSE,)))[1])
    (mount,) = devices.device_mounts(request(**fields))
    assert (mount.destination, mount.source, mount.type) == ("/dev/fuse", "/dev/fuse", "bind")
    assert devices.device_mounts(request(devices=(FUSE,))) == []


def test_user_namespace_shows_all_host_devices_to_privileged() -> None:
    asked = {"config": config(security=security(privileged=True)), "host_devices": (KMSG,), "devices": (FUSE,)}
    nodes, rules = devices.devices(request(**asked, pod=pod(uids=MAPPED, gids=MAPPED)))
    assert (nodes, [rule.allow for rule in rules]) == ((), [True])
    mounts = devices.device_mounts(request(**asked, pod=pod(uids=MAPPED, gids=MAPPED)))
    assert [mount.destination for mount in mounts] == ["/dev/kmsg", "/dev/fuse"]


def test_privileged_has_host_devices_unless_configured_otherwise() -> None:
    asked = {"config": config(security=security(privileged=True)), "host_devices": (KMSG,), "devices": (FUSE,)}
    nodes, rules = devices.devices(request(**asked))
    assert [node.path for node in nodes] == ["/dev/kmsg", "/dev/fuse"]
    assert rules == (runtime_spec.DeviceRule(allow=True, access="rwm"),)
    nodes, rules = devices.devices(request(**asked, defaults=Defaults(privileged_without_host_devices=True)))
    assert [node.path for node in nodes] == ["/dev/fuse"]
    assert not rules[0].allow


def test_device_over_a_host_device_is_refused_in_a_privileged_container() -> None:
    hidden = DeviceNode(path="/dev/kmsg", host_path="/dev/null", type="c", major=1, minor=3)
    asked = {"config": config(security=security(privileged=True)), "host_devices": (KMSG,)}
    with pytest.raises(Invalid, match="privileged"):
        devices.devices(request(devices=(hidden,), **asked))
    devices.devices(request(devices=(KMSG,), **asked))


@pytest.mark.parametrize(
    "change", [{"type": "p"}, {"path": "relative"}, {"path": "/proc/x"}, {"permissions": "rwx"}, {"permissions": "rr"}]
)
def test_malformed_devices_are_refused(change: dict[str, str]) -> None:
    fields = {field: getattr(FUSE, field) for field in FUSE.__struct_fields__}
    with pytest.raises(Invalid):
        devices.devices(request(devices=(DeviceNode(**{**fields, **change}),)))
    with pytest.raises(Invalid):
        devices.devices(request(devices=(DeviceNode(**{**fields, **change}),), pod=pod(uids=MAPPED, gids=MAPPED)))


def test_directory_of_devices_keeps_its_shape_elsewhere() -> None:
    found = [
        DeviceNode(path="", host_path=f"/dev/snd/{name}", type="c", major=116, minor=n)
        for n, name in enumerate(("seq", "by/x"))
    ]
    placed = devices.placed(Device(container_path="/dev/sound", host_path="/dev/snd/", permissions="rw"), found)
    assert [(node.path, node.permissions) for node in placed] == [("/dev/sound/seq", "rw"), ("/dev/sound/by/x", "rw")]
    with pytest.raises(Invalid):
        devices.placed(Device(container_path="/dev/x", host_path="/dev/none"), [])
    with pytest.raises(Invalid):
        devices.placed(Device(container_path="/dev/x", host_path="/dev/sn"), found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/fuse", Device(host_path="/dev/fuse", container_path="/dev/fuse")),
        ("/dev/sdc:/dev/xvdc", Device(host_path="/dev/sdc", container_path="/dev/xvdc")),
        ("/dev/sdc:r", Device(host_path="/dev/sdc", container_path="/dev/sdc", permissions="r")),
        ("/dev/sdc:/dev/xvdc:rw", Device(host_path="/dev/sdc", container_path="/dev/xvdc", permissions="rw")),
    ],
)
def test_a_device_is_written_in_four_ways(text: str, expected: Device) -> None:
    assert devices.parse_device(text, "f") == expected


@pytest.mark.parametrize(
    "text", ["", "fuse", "/etc/shadow", "/dev/../etc", "/dev//x", "/dev/x:", "/dev/x:q", "/dev/x:/dev/y:/dev/z:r", "/dev/x:rr"]
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="f: got"):
        devices.parse_device(text, "f")


@given(st.text(st.sampled_from("/dev.:rwmx \n\0é"), max_size=30))
def test_any_text_is_a_device_below_dev_or_refused(text: str) -> None:
    try:
        found = devices.parse_device(text, "f")
    except Invalid:
        return
    assert found.host_path.startswith("/dev/")
    assert ".." not in found.container_path.split("/")


def test_an_annotation_may_ask_for_allowed_devices_only() -> None:
    found = devices.annotated("/dev/fuse,/dev/null:/dev/zip:r,", ("/dev/fuse", "/dev/null"))
    assert [(each.container_path, each.permissions) for each in found] == [("/dev/fuse", "rwm"), ("/dev/zip", "r")]
    with pytest.raises(Denied, match=r"/dev/kmsg.*allowed_devices"):
        devices.annotated("/dev/kmsg:/dev/fuse", ("/dev/fuse",))
    with pytest.raises(Denied):
        devices.annotated("/dev/fuse", ())
    with pytest.raises(Invalid):
        devices.annotated(",".join(["/dev/fuse"] * 65), ("/dev/fuse",))


def test_devices_belong_to_whom_the_request_names() -> None:
    (node,) = devices.owned([FUSE], ContainerSecurity(run_as_user=1000))
    assert (node.uid, node.gid) == (1000, FUSE.gid)
    (node,) = devices.owned([FUSE], ContainerSecurity(run_as_user=0, run_as_group=7))
    assert (node.uid, node.gid) == (0, 7)
    assert devices.owned([FUSE], ContainerSecurity()) == (FUSE,)
