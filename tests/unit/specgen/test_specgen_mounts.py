"""Mounts: what is there by default, what replaces it, and what is refused."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from specgen_requests import HOST, WEAK_HOST, config, pod, request, security

from criollo.errors import Invalid, Unsupported
from criollo.model.container import Mount, Propagation
from criollo.model.pod import IdMapping, NamespaceMode, Namespaces
from criollo.oci import runtime_spec
from criollo.specgen import mounts
from criollo.specgen.host import HostFacts
from criollo.specgen.request import Defaults, DeviceNode, ImageDefaults, PlannedMount, SourcePropagation

MAPPED = (IdMapping(host_id=100000, container_id=0, length=65536),)
NODE = NamespaceMode.NODE


def planned(
    path: str, *, source: str = "/srv/v", held_by: SourcePropagation = SourcePropagation.PRIVATE, **f: Any
) -> PlannedMount:
    return PlannedMount(mount=Mount(**{"container_path": path, "host_path": source, **f}), source=source, propagation=held_by)


def made(*asked: PlannedMount, host: HostFacts = HOST, **fields: Any) -> dict[str, runtime_spec.Mount]:
    found, _ = mounts.mounts(request(mounts=asked, **fields), host)
    assert len({mount.destination for mount in found}) == len(found)
    return {mount.destination: mount for mount in found}


def test_defaults_are_the_kernels_and_the_pods() -> None:
    assert list(made()) == [
        *("/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue"),
        *("/dev/shm", "/etc/resolv.conf", "/etc/hostname", "/sys/fs/cgroup"),
    ]


@pytest.mark.parametrize(("readonly", "access"), [(True, "ro"), (False, "rw")])
def test_pod_files_may_be_written_where_the_root_may(readonly: bool, access: str) -> None:
    files = pod(hosts="/run/pod/hosts", container_env="/run/pod/.containerenv")
    found = made(pod=files, config=config(security=security(readonly_rootfs=readonly)))
    for path in ("/etc/resolv.conf", "/etc/hostname", "/etc/hosts"):
        assert access in found[path].options
    assert "ro" in found["/run/.containerenv"].options


def test_privileged_writes_sysfs_and_cgroups() -> None:
    found = made(config=config(security=security(privileged=True)))
    assert "rw" in found["/sys"].options
    assert "rw" in found["/sys/fs/cgroup"].options


@pytest.mark.parametrize(
    ("path", "source", "gone"),
    [
        ("/dev/shm", "/srv/v", set()),
        ("/etc/hosts", "/srv/v", set()),
        ("/dev", "/dev", {"/dev/pts", "/dev/mqueue", "/dev/shm"}),
        ("/sys", "/sys", {"/sys/fs/cgroup"}),
        ("/sys/", "/sys", {"/sys/fs/cgroup"}),
        ("/etc", "/srv/v", {"/etc/resolv.conf", "/etc/hostname"}),
        ("/device", "/srv/v", set()),
    ],
)
def test_requested_mount_replaces_defaults_at_and_below_it(path: str, source: str, gone: set[str]) -> None:
    found = made(planned(path, source=source))
    assert found[path.rstrip("/")].source == source
    assert set(made()) - set(found) == gone


def test_parents_come_first() -> None:
    order = list(made(planned("/a/b/c"), planned("/a"), planned("/a/b")))
    assert [path for path in order if path.startswith("/a")] == ["/a", "/a/b", "/a/b/c"]


def test_access_propagation_and_options_become_mount_options() -> None:
    asked = planned(
        "/v",
        readonly=True,
        options=("nodev", "noexec"),
        propagation=Propagation.HOST_TO_CONTAINER,
        held_by=SourcePropagation.SLAVE,
    )
    assert made(asked)["/v"].options == ("rbind", "rslave", "ro", "noexec", "nodev")


@pytest.mark.parametrize(
    ("asked", "held_by", "rootfs"),
    [
        (Propagation.PRIVATE, SourcePropagation.PRIVATE, ""),
        (Propagation.HOST_TO_CONTAINER, SourcePropagation.SLAVE, "rslave"),
        (Propagation.HOST_TO_CONTAINER, SourcePropagation.SHARED, "rslave"),
        (Propagation.BIDIRECTIONAL, SourcePropagation.SHARED, "rshared"),
    ],
)
def test_rootfs_follows_the_strongest_propagation(asked: Propagation, held_by: SourcePropagation, rootfs: str) -> None:
    both = (planned("/a", propagation=asked, held_by=held_by), planned("/b"))
    assert mounts.mounts(request(mounts=both), HOST)[1] == rootfs
    assert mounts.mounts(request(mounts=both[::-1]), HOST)[1] == rootfs


@pytest.mark.parametrize(
    ("asked", "held_by"),
    [
        (Propagation.HOST_TO_CONTAINER, SourcePropagation.PRIVATE),
        (Propagation.BIDIRECTIONAL, SourcePropagation.SLAVE),
        (Propagation.BIDIRECTIONAL, SourcePropagation.PRIVATE),
    ],
)
def test_propagation_the_source_cannot_give_is_refused(asked: Propagation, held_by: SourcePropagation) -> None:
    with pytest.raises(Invalid, match="make-shared"):
        made(planned("/a", propagation=asked, held_by=held_by))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/", "rslave"),
        ("/var", "rslave"),
        ("/var/lib/criollo", "rslave"),
        ("/var/lib/criollo/rootfs", "rprivate"),
        ("/va", "rprivate"),
    ],
)
def test_bind_that_holds_the_storage_root_follows_the_host(source: str, expected: str) -> None:
    found = made(planned("/host", source=source), defaults=Defaults(storage_root="/var/lib/criollo"))
    assert found["/host"].options[1] == expected


def test_recursive_read_only_needs_support() -> None:
    able = Defaults(supports_rro=True)
    assert "rro" in made(planned("/v", readonly=True, recursive_read_only=True), defaults=able)["/v"].options
    with pytest.raises(Unsupported, match="support is not available"):
        made(planned("/v", readonly=True, recursive_read_only=True))


def test_id_mapped_mount_needs_support() -> None:
    with pytest.raises(Unsupported, match="idmap mounts specified but OCI runtime does not support them"):
        made(planned("/v", uid_mappings=MAPPED))
    found = made(planned("/v", uid_mappings=MAPPED), defaults=Defaults(supports_idmap=True))
    assert found["/v"].uid_mappings == (runtime_spec.IdMapping(container_id=0, host_id=100000, size=65536),)


def test_image_volume_is_read_only_and_off_the_kernels_paths() -> None:
    volume = {"host_path": "", "image": "registry.example/data:1"}
    assert "ro" in made(planned("/v", readonly=True, **volume))["/v"].options
    with pytest.raises(Invalid, match="cannot be written"):
        made(planned("/v", **volume))
    with pytest.raises(Invalid):
        made(planned("/dev/x", readonly=True, **volume))
    with pytest.raises(Unsupported):
        made(planned("/v", source="", readonly=True, image="x"))


@pytest.mark.parametrize(
    "path", ["", "relative", "/", "/a/..", "/a\nb", "/a\0", "/proc/1", "/proc/sys", "/proc", "/proc/cpuinfo/x", "/x" * 3000]
)
def test_destination_of_known_bad_shape_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        made(planned(path))


def test_few_files_below_proc_and_proc_itself_may_be_mounted() -> None:
    assert "/proc/cpuinfo" in made(planned("/proc/cpuinfo"))
    assert made(planned("/proc", source="/proc"))["/proc"].type == "bind"


def test_destinations_are_compared_clean() -> None:
    with pytest.raises(Invalid, match="each destination once"):
        made(planned("/a/b"), planned("/a//b/"))


def test_unknown_option_is_refused() -> None:
    with pytest.raises(Invalid, match="nosuid"):
        made(planned("/v", options=("dev,suid",)))


def test_global_readonly_leaves_places_to_write() -> None:
    found = made(planned("/tmp"), defaults=Defaults(read_only=True))
    assert (found["/run"].type, found["/tmp"].type, found["/var/tmp"].type) == ("tmpfs", "bind", "tmpfs")


def test_user_namespace_binds_what_belongs_to_the_host() -> None:
    everything = Namespaces(network=NODE, pid=NODE, ipc=NODE)
    own = made(pod=pod(uids=MAPPED, gids=MAPPED))
    host = made(pod=pod(everything, uids=MAPPED, gids=MAPPED), config=config(security=security(namespaces=everything)))
    assert [own[path].type for path in ("/proc", "/sys", "/dev/mqueue")] == ["proc", "sysfs", "mqueue"]
    assert [host[path].type for path in ("/proc", "/sys", "/dev/mqueue")] == ["bind", "bind", "bind"]
    assert all(found["/sys/fs/cgroup"].type == "cgroup" for found in (own, host))  # covers what comes along with /sys


def test_sysfs_of_the_host_is_read_only_at_any_depth_where_that_can_be() -> None:
    shared = Namespaces(network=NODE, pid=NamespaceMode.CONTAINER)
    fields = {"pod": pod(shared, uids=MAPPED, gids=MAPPED), "config": config(security=security(namespaces=shared))}
    assert "ro" in made(**fields)["/sys"].options
    assert "rro" in made(**fields, defaults=Defaults(supports_rro=True))["/sys"].options


def test_message_queues_of_the_host_are_bound_only_where_it_has_them() -> None:
    shared = Namespaces(ipc=NODE, pid=NamespaceMode.CONTAINER)
    fields = {"pod": pod(shared, uids=MAPPED, gids=MAPPED), "config": config(security=security(namespaces=shared))}
    assert "/dev/mqueue" in made(**fields)
    assert "/dev/mqueue" not in made(**fields, host=HostFacts(cgroup_v2=True))


def test_user_namespace_binds_devices_instead_of_making_them() -> None:
    fuse = DeviceNode(path="/dev/inside", host_path="/dev/fuse", type="c", major=10, minor=229)
    null = DeviceNode(path="/dev/null", host_path="/dev/null", type="c", major=1, minor=3)
    assert "/dev/inside" not in made(devices=(fuse,))
    found = made(devices=(fuse, null), pod=pod(uids=MAPPED, gids=MAPPED))
    assert (found["/dev/inside"].type, found["/dev/inside"].source) == ("bind", "/dev/fuse")
    assert "/dev/null" not in found  # runtimes see to it
    assert list(made(planned("/dev/inside"), devices=(fuse,), pod=pod(uids=MAPPED, gids=MAPPED))).count("/dev/inside") == 1


def test_terminal_group_is_given_only_where_it_exists() -> None:
    few = (IdMapping(host_id=100000, container_id=0, length=5),)
    assert "gid=5" in made()["/dev/pts"].options
    assert "gid=5" not in made(pod=pod(uids=few, gids=few))["/dev/pts"].options


def test_image_volumes_are_clean_and_yield_to_requests() -> None:
    image = ImageDefaults(volumes=("/data/", "/cache", "/data", "/"))
    assert mounts.image_volumes(image, [Mount(container_path="/cache/")]) == ("/data",)
    with pytest.raises(Invalid):
        mounts.image_volumes(ImageDefaults(volumes=("/../proc",)), [])


def test_source_is_below_the_prefix_whatever_it_says() -> None:
    assert mounts.host_source(Mount(container_path="/v", host_path="/../../etc"), "/host/") == "/host/etc"
    assert mounts.host_source(Mount(container_path="/v", host_path="/etc/"), "") == "/etc"
    with pytest.raises(Invalid):
        mounts.host_source(Mount(container_path="/v"), "")


def test_absent_source_on_the_list_is_refused() -> None:
    mounts.check_absent("/etc/hostnames", ["/etc/hostname"])
    with pytest.raises(Invalid, match="path does not exist and will cause issues as a directory"):
        mounts.check_absent("/etc/hostname", ["/etc/hostname"])


segments = st.lists(st.sampled_from(["a", "b", "..", ".", "", "proc", "dev", "sys"]), max_size=5)


@given(st.lists(segments.map(lambda parts: "/" + "/".join(parts)), max_size=5))
def test_any_destinations_are_ordered_clean_and_off_proc(destinations: list[str]) -> None:
    try:
        found, _ = mounts.mounts(request(mounts=tuple(planned(path) for path in destinations)), HOST)
    except Invalid:
        return
    names = [mount.destination for mount in found]
    assert [name.count("/") for name in names] == sorted(name.count("/") for name in names)
    assert not any("//" in name or "/.." in name or name.endswith("/") for name in names)
    assert not any(mount.destination.startswith("/proc") and mount.type == "bind" for mount in found)


def test_the_nodes_shm_comes_whole_into_a_user_namespace() -> None:
    assert made(pod=pod(shm="/dev/shm"))["/dev/shm"].options == ("bind", "rw")
    assert made(pod=pod(shm="/dev/shm", uids=MAPPED, gids=MAPPED))["/dev/shm"].options == ("rbind", "rw")


def test_an_init_system_gets_filesystems_and_its_cgroups_where_it_cannot_lift_limits() -> None:
    systemd = config(command=("/lib/systemd/systemd",))
    guarded = msgspec.structs.replace(HOST, delegates_cgroups=True)
    for host, access in ((guarded, "rw"), (HOST, "ro"), (WEAK_HOST, "ro")):
        found = {each.destination: each for each in mounts.mounts(request(config=systemd), host)[0]}
        assert {found[path].type for path in ("/run", "/run/lock", "/tmp", "/var/log/journal")} == {"tmpfs"}
        assert access in found["/sys/fs/cgroup"].options
        assert bool(mounts.notes(request(config=systemd), host)) is (access == "ro")
    assert "/tmp" not in made()
    assert mounts.notes(request(), WEAK_HOST) == []


def test_cgroups_are_writable_by_annotation_on_version_2() -> None:
    for host, access in ((HOST, "rw"), (WEAK_HOST, "ro")):
        found = {each.destination: each for each in mounts.mounts(request(writable_cgroups=True), host)[0]}
        assert access in found["/sys/fs/cgroup"].options


def test_mounts_of_the_node_give_way_to_the_requests() -> None:
    zone = runtime_spec.Mount(destination="/etc/localtime", type="bind", source="/zone", options=("bind", "ro"))
    assert made(default_mounts=(zone,))["/etc/localtime"].source == "/zone"
    asked = PlannedMount(mount=Mount(container_path="/etc/localtime"), source="/mine")
    assert made(asked, default_mounts=(zone,))["/etc/localtime"].source == "/mine"
