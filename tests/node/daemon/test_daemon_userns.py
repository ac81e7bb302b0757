"""Pods with a user namespace of their own, with runtimes that can map no mounts themselves."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.artifacts import make_artifact, push_artifact
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.images import busybox_layer, directory, file, make_image, push, whiteout
from support.registry import Registry
from support.warm import passable, warm_daemon

pytestmark = pytest.mark.node

FIRST, LENGTH = 100000, 65536
handlers = pytest.mark.parametrize("handler", ["crun", "runc"])


@pytest.fixture(scope="module")
def daemon(registry: Registry) -> Iterator[Daemon]:
    """A daemon in a place that users of a pod may pass: pytest's own directories are closed to them."""
    with passable() as place, warm_daemon(place, registry) as running:
        yield running


@pytest.fixture(scope="module")
def layered(daemon: Daemon, registry: Registry) -> str:
    """An image of three layers, with a user, a working directory and a volume of its own."""
    middle = [directory("opt"), file("opt/old", "1"), file("opt/kept", "2", uid=5, gid=6), directory("srv", uid=1000, gid=1000)]
    top = [whiteout("opt/old"), file("opt/new", "3"), file("etc/shadow", "secret", mode=0o600)]
    config = {"User": "1000:1000", "WorkingDir": "/srv/deep/work", "Volumes": {"/var/data": {}}}
    push(registry, "layered", "latest", make_image([busybox_layer(), middle, top], config=config))
    daemon.pull(registry.reference("layered"))
    return registry.reference("layered")


def mapped(config: Any, *, first: int = FIRST, **modes: int) -> Any:
    """The config of a pod or container, in a user namespace."""
    options = config.linux.security_context.namespace_options
    options.userns_options.mode = pb.POD
    for ids in (options.userns_options.uids, options.userns_options.gids):
        ids.add(host_id=first, container_id=0, length=LENGTH)
    for name, mode in modes.items():
        setattr(options, name, mode)
    return config


def run_pod(daemon: Daemon, handler: str, **modes: int) -> str:
    return daemon.run_pod(mapped(daemon.pod_config(), **modes), handler=handler)


def container_config(daemon: Daemon, image: str, *command: str, name: str = "main", **modes: int) -> Any:
    return mapped(daemon.container_config(image, *(command or ("sleep", "1000")), name=name), **modes)


def run(daemon: Daemon, handler: str, image: str) -> str:
    return daemon.run_container(run_pod(daemon, handler), container_config(daemon, image))


def with_mapped_volume(config: Any, source: Path) -> Any:
    mount = config.mounts.add(container_path="/v", host_path=str(source))
    mount.uidMappings.add(host_id=FIRST, container_id=0, length=LENGTH)
    mount.gidMappings.add(host_id=FIRST, container_id=0, length=LENGTH)
    return config


def maps_volumes(handler: str) -> bool:
    """Whether the runtime says so itself."""
    said = subprocess.run([handler, "features"], capture_output=True, check=False)
    extensions = json.loads(said.stdout)["linux"].get("mountExtensions", {}) if said.returncode == 0 else {}
    return bool(extensions.get("idmap", {}).get("enabled"))


def refused(code: grpc.StatusCode, call: Any) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() is code, error.value.details()
    return str(error.value.details())


def owners(*paths: Path) -> set[tuple[int, int]]:
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in paths}


def upper(daemon: Daemon, container: str) -> Path:
    return daemon.root / "rootfs" / container / "diff"


@handlers
def test_root_inside_is_nobody_special_outside(daemon: Daemon, image: str, handler: str) -> None:
    container = run(daemon, handler, image)
    assert daemon.output(container, "id", "-u") == "0\n"
    assert daemon.output(container, "cat", "/proc/self/uid_map", "/proc/self/gid_map").split() == 2 * ["0", "100000", "65536"]
    status = Path(f"/proc/{daemon.info(container)['pid']}/status").read_text()
    assert f"Uid:\t{FIRST}\t{FIRST}\t{FIRST}\t{FIRST}\n" in status


@handlers
def test_files_of_the_image_belong_to_root_and_writes_land_mapped(daemon: Daemon, image: str, handler: str) -> None:
    container = run(daemon, handler, image)
    stat = daemon.output(container, "stat", "-c", "%u:%g", "/", "/bin/busybox", "/etc/passwd", "/etc/resolv.conf", "/dev/shm")
    assert set(stat.split()) == {"0:0"}
    daemon.output(container, "sh", "-ec", "echo x > /new; mkdir /own; chown 7:8 /own; echo line >> /etc/passwd")
    diff = upper(daemon, container)
    assert owners(diff / "new", diff / "etc" / "passwd") == {(FIRST, FIRST)}
    assert owners(diff / "own") == {(FIRST + 7, FIRST + 8)}
    layers = daemon.root / "layers"
    assert owners(*(layer / "etc/passwd" for layer in layers.iterdir() if (layer / "etc/passwd").exists())) == {(0, 0)}


@handlers
def test_files_of_the_host_cannot_be_written(daemon: Daemon, image: str, handler: str) -> None:
    host = daemon.place / f"host-{handler}"
    host.mkdir(mode=0o755)
    (host / "readable").write_text("host")
    (host / "secret").write_text("host")
    (host / "secret").chmod(0o600)
    (host / "given").mkdir()
    os.chown(host / "given", FIRST, FIRST)
    config = container_config(daemon, image)
    config.mounts.add(container_path="/host", host_path=str(host))
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.output(container, "stat", "-c", "%u", "/host/readable", "/host/given").split() == ["65534", "0"]
    assert daemon.output(container, "cat", "/host/readable") == "host"
    for command in ("cat /host/secret", "echo x > /host/readable", "touch /host/more", "chmod 777 /host/readable"):
        assert daemon.exec(container, "sh", "-c", command).exit_code != 0
    daemon.output(container, "touch", "/host/given/file")
    assert owners(host / "given" / "file") == {(FIRST, FIRST)}
    assert (host / "readable").read_text() == "host"


@handlers
def test_sources_below_closed_directories_can_be_mounted(daemon: Daemon, image: str, handler: str) -> None:
    source = daemon.place / f"closed-{handler}" / "volume"
    source.mkdir(parents=True)
    source.parent.chmod(0o700)
    (source / "f").write_text("seen")
    config = container_config(daemon, image)
    config.mounts.add(container_path="/volume", host_path=str(source), readonly=True)
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.output(container, "cat", "/volume/f") == "seen"


@handlers
def test_only_the_way_to_the_root_filesystem_is_open(daemon: Daemon, image: str, handler: str) -> None:
    pod = run_pod(daemon, handler)
    container = daemon.run_container(pod, container_config(daemon, image))
    other = daemon.run_container(daemon.run_pod(), daemon.container_config(image, "sleep", "1000"))
    rootfs, runroot = daemon.root / "rootfs", daemon.runroot
    assert {path.stat().st_mode & 0o777 for path in (daemon.root, rootfs, rootfs / container)} == {0o711}
    closed = (rootfs / other, daemon.root / "layers", runroot, runroot / "pods", runroot / "containers", runroot / "pods" / pod)
    assert {path.stat().st_mode & 0o777 for path in closed} == {0o700}


@handlers
def test_the_network_works(daemon: Daemon, image: str, handler: str) -> None:
    pod, config = run_pod(daemon, handler), container_config(daemon, image)
    config.linux.security_context.capabilities.add_capabilities.append("NET_RAW")
    container = daemon.run_container(pod, config)
    address = daemon.cri.call("PodSandboxStatus", pb.PodSandboxStatusRequest(pod_sandbox_id=pod)).status.network.ip
    assert f"inet {address}/24" in daemon.output(container, "ip", "addr", "show", "eth0")
    daemon.output(container, "ping", "-c", "1", daemon.net + "1")
    assert "UP" in daemon.output(container, "ip", "link", "show", "lo")
    assert "eth0" in daemon.output(container, "ls", "/sys/class/net")


@handlers
def test_a_second_container_shares_the_user_namespace(daemon: Daemon, image: str, handler: str) -> None:
    pod = run_pod(daemon, handler)
    first = daemon.run_container(pod, container_config(daemon, image))
    second = daemon.run_container(pod, container_config(daemon, image, name="second"))
    spaces = {os.readlink(f"/proc/{daemon.info(each)['pid']}/ns/user") for each in (first, second)}
    assert len(spaces) == 1
    assert os.readlink("/proc/self/ns/user") not in spaces
    daemon.output(first, "sh", "-c", "echo hello > /dev/shm/f")
    assert daemon.output(second, "cat", "/dev/shm/f") == "hello\n"


@handlers
def test_pods_with_other_mappings_do_not_meet(daemon: Daemon, image: str, handler: str) -> None:
    one = run(daemon, handler, image)
    pod = daemon.run_pod(mapped(daemon.pod_config(), first=300000), handler=handler)
    other = daemon.run_container(pod, mapped(daemon.container_config(image, "sleep", "1000"), first=300000))
    for container, first in ((one, FIRST), (other, 300000)):
        daemon.output(container, "touch", "/mine")
        assert owners(upper(daemon, container) / "mine") == {(first, first)}


@handlers
def test_an_image_of_several_layers_and_a_user_of_its_own(daemon: Daemon, layered: str, handler: str) -> None:
    container = run(daemon, handler, layered)
    assert daemon.output(container, "id") == "uid=1000(alice) gid=1000(alice) groups=1000(alice)\n"
    assert daemon.output(container, "pwd") == "/srv/deep/work\n"
    places = ("/opt/kept", "/opt/new", "/srv", "/srv/deep/work", "/var/data")
    stat = daemon.output(container, "stat", "-c", "%u:%g", *places)
    assert stat.split() == ["5:6", "0:0", "1000:1000", "0:0", "0:0"]
    assert daemon.output(container, "ls", "/opt").split() == ["kept", "new"]
    assert daemon.exec(container, "cat", "/etc/shadow").exit_code != 0
    daemon.output(container, "touch", "/srv/file")
    diff = upper(daemon, container)
    assert owners(diff / "srv" / "file", diff / "srv") == {(FIRST + 1000, FIRST + 1000)}
    assert owners(diff / "srv/deep", diff / "srv/deep/work", diff / "var/data") == {(FIRST, FIRST)}


@handlers
def test_a_user_the_image_does_not_know_gets_a_line_in_passwd(daemon: Daemon, image: str, handler: str) -> None:
    config = container_config(daemon, image)
    config.linux.security_context.run_as_user.value = 4321
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert "4321:x:4321:0:" in daemon.output(container, "cat", "/etc/passwd")
    assert daemon.output(container, "stat", "-c", "%u:%g", "/etc/passwd") == "0:0\n"


@handlers
def test_a_user_outside_the_mapping_is_refused(daemon: Daemon, image: str, handler: str) -> None:
    pod, config = run_pod(daemon, handler), container_config(daemon, image)
    config.linux.security_context.run_as_user.value = LENGTH
    text = refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: daemon.create(pod, config))
    assert text == "user: got 65536, expected an id that the pod's user namespace has (0-65535)"


@handlers
def test_output_is_logged_and_the_end_is_seen(daemon: Daemon, image: str, handler: str) -> None:
    config = container_config(daemon, image, "sh", "-c", "echo out; exit 3")
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.wait_state(container, pb.CONTAINER_EXITED).exit_code == 3
    assert daemon.container_log(container) == "out"


@handlers
def test_the_log_has_nothing_of_the_runtime(daemon: Daemon, image: str, handler: str) -> None:
    config = container_config(daemon, image, "echo", "out")
    config.tty = True
    container = daemon.run_container(run_pod(daemon, handler), config)
    daemon.wait_state(container, pb.CONTAINER_EXITED)
    assert daemon.container_log(container).strip() == "out"


@handlers
def test_processes_are_shared_through_an_infra_container(daemon: Daemon, image: str, handler: str) -> None:
    pod = run_pod(daemon, handler, pid=pb.POD)
    container = daemon.run_container(pod, container_config(daemon, image, pid=pb.POD))
    assert "catatonit" in daemon.output(container, "cat", "/proc/1/cmdline")
    assert daemon.output(container, "stat", "-c", "%u", "/proc/1").split() == ["0"]


@handlers
@pytest.mark.parametrize("kind", ["pid", "ipc", "network"])
def test_namespaces_of_the_host_beside_an_own_user_namespace(daemon: Daemon, image: str, handler: str, kind: str) -> None:
    pod = run_pod(daemon, handler, **{kind: pb.NODE})
    container = daemon.run_container(pod, container_config(daemon, image, **{kind: pb.NODE}))
    name = {"network": "net"}.get(kind, kind)
    assert daemon.output(container, "readlink", f"/proc/self/ns/{name}").strip() == os.readlink(f"/proc/self/ns/{name}")
    assert daemon.output(container, "id", "-u") == "0\n"
    for path in ("/sys/kernel/profiling", "/proc/sys/kernel/core_pattern"):
        assert daemon.exec(container, "sh", "-c", f"echo 0 > {path}").exit_code != 0


@handlers
@pytest.mark.parametrize("network", [pb.POD, pb.NODE])
def test_cgroups_of_the_host_are_out_of_reach(daemon: Daemon, image: str, handler: str, network: int) -> None:
    pod = run_pod(daemon, handler, network=network)
    container = daemon.run_container(pod, container_config(daemon, image, network=network))
    assert daemon.output(container, "find", "/sys/fs/cgroup", "-type", "d", "-name", "crio-*") == ""
    script = "for d in /sys/fs/cgroup/*/; do mkdir $d/x 2>&1; done"
    tried = daemon.output(container, "sh", "-c", f"({script}) || true").splitlines()
    assert tried
    assert all("Read-only file system" in line for line in tried)


@handlers
def test_privileged_is_privileged_in_its_namespace_only(daemon: Daemon, image: str, handler: str) -> None:
    config = mapped(daemon.pod_config())
    config.linux.security_context.privileged = True
    asked = container_config(daemon, image)
    asked.linux.security_context.privileged = True
    container = daemon.run_container(daemon.run_pod(config, handler=handler), asked)
    daemon.output(container, "mount", "-t", "tmpfs", "none", "/home")
    block = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    assert block
    for path in block:
        assert daemon.output(container, "stat", "-c", "%u", str(path)).strip() == "65534"
        assert daemon.exec(container, "dd", f"if={path}", "of=/dev/null", "bs=512", "count=1").exit_code != 0


@handlers
def test_devices_of_the_host_keep_their_owners(daemon: Daemon, image: str, handler: str) -> None:
    config = container_config(daemon, image)
    config.devices.add(container_path="/dev/elsewhere", host_path="/dev/zero", permissions="rw")
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.output(container, "stat", "-c", "%u %t:%T", "/dev/elsewhere") == "65534 1:5\n"
    assert daemon.output(container, "sh", "-c", "head -c 3 /dev/elsewhere | wc -c") == "3\n"
    assert daemon.exec(container, "chmod", "600", "/dev/elsewhere").exit_code != 0


@handlers
def test_the_hosts_null_device_stays_roots(daemon: Daemon, image: str, handler: str) -> None:
    config = container_config(daemon, image)
    config.linux.security_context.run_as_user.value = 1000
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert owners(Path("/dev/null")) == {(0, 0)}
    daemon.output(container, "true")
    assert owners(Path("/dev/null")) == {(0, 0)}
    assert daemon.exec(container, "chmod", "600", "/dev/null").exit_code != 0


@handlers
def test_sysctls_are_written_inside(daemon: Daemon, image: str, handler: str) -> None:
    config = mapped(daemon.pod_config())
    config.linux.sysctls.update(
        {"net.ipv4.ping_group_range": "0 2147483647", "kernel.shm_rmid_forced": "1", "net.core.somaxconn": "77"}
    )
    container = daemon.run_container(daemon.run_pod(config, handler=handler), container_config(daemon, image))
    files = [f"/proc/sys/{name}" for name in ("net/ipv4/ping_group_range", "kernel/shm_rmid_forced", "net/core/somaxconn")]
    assert daemon.output(container, "cat", *files).split() == ["0", "65535", "1", "77"]


def test_a_sysctl_that_the_kernel_refuses_is_named(daemon: Daemon) -> None:
    config = mapped(daemon.pod_config())
    config.linux.sysctls["net.ipv4.ping_group_range"] = "70000 70001"
    assert "net.ipv4.ping_group_range" in refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: daemon.run_pod(config))


@handlers
def test_volumes_with_mappings_want_a_newer_runtime(daemon: Daemon, image: str, handler: str) -> None:
    if maps_volumes(handler):
        pytest.skip(f"this {handler} can")
    pod, config = run_pod(daemon, handler), with_mapped_volume(container_config(daemon, image), daemon.place)
    text = refused(grpc.StatusCode.UNIMPLEMENTED, lambda: daemon.create(pod, config))
    assert "OCI runtime does not support" in text


@handlers
def test_volumes_with_mappings_have_the_owners_inside(daemon: Daemon, image: str, handler: str) -> None:
    if not maps_volumes(handler):
        pytest.skip(f"this {handler} cannot")
    source = daemon.place / f"mapped-{handler}"
    source.mkdir(mode=0o700)
    (source / "f").write_text("mine")
    config = with_mapped_volume(container_config(daemon, image), source)
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.output(container, "stat", "-c", "%u:%g", "/v", "/v/f").split() == ["0:0", "0:0"]
    daemon.output(container, "sh", "-ec", "echo x > /v/new; chown 3:4 /v/new")
    assert owners(source / "new") == {(3, 4)}


@handlers
def test_volumes_can_be_read_only_at_any_depth(daemon: Daemon, image: str, handler: str) -> None:
    source = daemon.place / f"rro-{handler}"
    (source / "deep").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "deep", source / "deep"], check=True)
    try:
        config = container_config(daemon, image)
        config.mounts.add(container_path="/v", host_path=str(source), readonly=True, recursive_read_only=True)
        container = daemon.run_container(run_pod(daemon, handler), config)
        answer = daemon.exec(container, "touch", "/v/deep/x")
        assert b"Read-only file system" in answer.stderr
        daemon.remove_everything()
    finally:
        subprocess.run(["umount", source / "deep"], check=True)


def test_status_says_what_the_handlers_can(daemon: Daemon) -> None:
    status = daemon.cri.call("Status")
    handlers = {each.name: each.features for each in status.runtime_handlers}
    assert status.features.user_namespaces_host_network == handlers[""].user_namespaces
    assert set(handlers) == {"", "crun", "runc"}
    assert all(each.recursive_read_only_mounts for each in handlers.values())
    assert all(handlers[name].user_namespaces == maps_volumes(name) for name in ("crun", "runc"))


@handlers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_daemon_goes_on_with_the_pod(daemon: Daemon, image: str, handler: str, number: int) -> None:
    pod = run_pod(daemon, handler)
    first = daemon.run_container(pod, container_config(daemon, image))
    daemon.restart(number)
    assert daemon.output(first, "id", "-u") == "0\n"
    assert (daemon.root / "rootfs").stat().st_mode & 0o777 == daemon.root.stat().st_mode & 0o777 == 0o711
    second = daemon.run_container(pod, container_config(daemon, image, name="second"))
    assert len({os.readlink(f"/proc/{daemon.info(each)['pid']}/ns/user") for each in (first, second)}) == 1
    assert daemon.output(second, "stat", "-c", "%u", "/bin/busybox") == "0\n"
    daemon.stop_container(first)
    daemon.remove_pod(pod)


@handlers
def test_stop_and_remove_leave_nothing(daemon: Daemon, image: str, handler: str) -> None:
    pod = run_pod(daemon, handler)
    container = daemon.run_container(pod, container_config(daemon, image))
    daemon.output(container, "sh", "-ec", "mkdir -p /a/b; touch /a/b/c; chmod 0 /a/b /a; chown -R 9:9 /a")
    assert (daemon.runroot / "userns" / pod).exists()
    daemon.stop_container(container)
    daemon.remove_container(container)
    assert not (daemon.root / "rootfs" / container).exists()
    daemon.remove_pod(pod)
    assert not (daemon.runroot / "userns" / pod).exists()
    wait_for(lambda: os.listdir(daemon.root / "trash") == [])


@handlers
def test_a_closed_directory_above_the_root_is_named_and_nothing_is_left(daemon: Daemon, image: str, handler: str) -> None:
    pod, config = run_pod(daemon, handler), container_config(daemon, image)
    daemon.place.chmod(0o700)
    try:
        text = refused(grpc.StatusCode.UNKNOWN, lambda: daemon.create(pod, config))
    finally:
        daemon.place.chmod(0o711)
    assert f"chmod o+x {daemon.place}" in text
    assert daemon.cri.call("ListContainers").containers == []


# Volumes from images --------------------------------------------------------------------------------------------------


@handlers
@pytest.mark.parametrize("sub_path", ["", "srv"])
def test_an_image_volume_has_the_owners_inside(daemon: Daemon, image: str, layered: str, handler: str, sub_path: str) -> None:
    config = container_config(daemon, image)
    config.mounts.add(container_path="/vol", image=pb.ImageSpec(image=layered), image_sub_path=sub_path)
    container = daemon.run_container(run_pod(daemon, handler), config)
    if sub_path:
        assert daemon.output(container, "stat", "-c", "%u:%g", "/vol").strip() == "1000:1000"
        return
    assert daemon.output(container, "stat", "-c", "%u:%g", "/vol/opt/kept").strip() == "5:6"
    assert daemon.output(container, "cat", "/vol/etc/shadow") == "secret"  # root's alone, and root is inside
    assert daemon.exec(container, "touch", "/vol/new").exit_code != 0


@handlers
def test_files_of_an_artifact_can_be_read(daemon: Daemon, registry: Registry, image: str, handler: str) -> None:
    push_artifact(registry, "team/mapped", "v1", make_artifact({"a/b": b"1"}))
    daemon.pull(registry.reference("team/mapped", "v1"))
    config = container_config(daemon, image)
    config.mounts.add(container_path="/vol", image=pb.ImageSpec(image=registry.reference("team/mapped", "v1")))
    container = daemon.run_container(run_pod(daemon, handler), config)
    assert daemon.output(container, "cat", "/vol/a/b") == "1"
