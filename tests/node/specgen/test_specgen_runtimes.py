"""Specs run by real runtimes: what the process inside sees."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.linux.devices import host_nodes
from criollo.model.container import Capabilities, ContainerConfig, ContainerSecurity, ImageSpec, Mount, Propagation
from criollo.model.pod import NamespaceMode, Namespaces, PodConfig, PodSecurity, Resources
from criollo.oci import runtime_spec
from criollo.specgen.build import build
from criollo.specgen.host import gather
from criollo.specgen.request import Defaults, DeviceNode, ImageDefaults, PlannedMount, PodView, SpecRequest
from criollo.specgen.rlimits import parse_ulimit
from criollo.specgen.users import resolve

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

KINDS = ("net", "ipc", "uts")
MASKED = ("/proc/kcore", "/proc/keys", "/sys/firmware")
READONLY = ("/proc/sys", "/proc/bus")


class Box:
    """A busybox rootfs, pinned namespaces, and a way to run a spec in them."""

    def __init__(self, directory: Path, runtime: str) -> None:
        self.directory, self.runtime = directory, runtime
        self.id = f"criollo-spec-{uuid.uuid4().hex[:12]}"
        self.rootfs = directory / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "etc", "run", "tmp", "data"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy2("/bin/busybox", self.rootfs / "bin/busybox")
        (self.rootfs / "bin/sh").symlink_to("busybox")
        self.passwd = b"root:x:0:0::/root:/bin/sh\nada:x:1001:2001::/home/ada:/bin/sh\n"
        self.group = b"root:x:0:\nteam:x:3001:ada\n"
        for name, text in (
            ("resolv.conf", "nameserver 192.0.2.1\n"),
            ("hostname", "box\n"),
            ("hosts", "127.0.0.1 localhost\n"),
        ):
            (directory / name).write_text(text)
        (directory / "shm").mkdir()
        self.namespaces = {kind: directory / kind for kind in KINDS}
        for path in self.namespaces.values():
            path.touch()

    def open(self) -> None:
        # the kernel pins no namespace on a mount it would have to propagate
        subprocess.run(["mount", "--bind", self.directory, self.directory], check=True)
        subprocess.run(["mount", "--make-private", self.directory], check=True)
        pins = [f"--{kind}={path}" for kind, path in self.namespaces.items()]
        subprocess.run(["unshare", *pins, "hostname", "box"], check=True)

    def close(self) -> None:
        subprocess.run([self.runtime, "delete", "-f", self.id], capture_output=True, check=False)
        subprocess.run(["umount", "-R", self.directory], check=True)

    def request(self, script: str, security: ContainerSecurity, **more: object) -> SpecRequest:
        pod = PodView(
            id="p" * 64,
            config=PodConfig(name="pod", uid="u", namespace="ns", security=PodSecurity()),
            hostname="box",
            network_ns=str(self.namespaces["net"]),
            ipc_ns=str(self.namespaces["ipc"]),
            uts_ns=str(self.namespaces["uts"]),
            resolv_conf=str(self.directory / "resolv.conf"),
            hostname_file=str(self.directory / "hostname"),
            hosts=str(self.directory / "hosts"),
            shm=str(self.directory / "shm"),
        )
        config = ContainerConfig(
            name="c",
            image=ImageSpec(image="busybox"),
            command=("/bin/busybox", "sh", "-c", script),
            security=security,
            resources=more.pop("resources", Resources()),  # type: ignore[arg-type]
            mounts=tuple(planned.mount for planned in more.get("mounts", ())),  # type: ignore[attr-defined]
        )
        return SpecRequest(
            container_id="c" * 64,
            container_name="k8s_c",
            config=config,
            pod=pod,
            image=ImageDefaults(env=("PATH=/bin",)),
            user=resolve(security, "", passwd=self.passwd, group=self.group),
            rootfs=str(self.rootfs),
            cgroups_path=f"/{self.id}",
            **more,  # type: ignore[arg-type]
        )

    def run(self, request: SpecRequest) -> str:
        spec = build(request, gather()).spec
        (self.directory / "config.json").write_bytes(runtime_spec.encode(spec))
        done = subprocess.run(
            [self.runtime, "run", "--bundle", self.directory, self.id],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["crun", "runc"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path, request.param)
    try:
        made.open()
        yield made
    finally:
        made.close()


def secure(**fields: object) -> ContainerSecurity:
    return ContainerSecurity(namespaces=Namespaces(pid=NamespaceMode.CONTAINER), **fields)  # type: ignore[arg-type]


def status(box: Box, security: ContainerSecurity, **more: object) -> dict[str, str]:
    text = box.run(box.request("busybox cat /proc/self/status", security, **more))
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_root_gets_the_nine_default_capabilities(box: Box) -> None:
    seen = status(box, secure())
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"00000000000005fb"}
    assert {seen[name] for name in ("CapInh", "CapAmb")} == {"0000000000000000"}


def test_another_user_has_no_capability_but_a_bounding_set(box: Box) -> None:
    seen = status(box, secure(run_as_username="ada", capabilities=Capabilities(add=("NET_ADMIN",))))
    assert seen["CapBnd"] == "00000000000015fb"
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0000000000000000"}


def test_ambient_capability_reaches_another_user(box: Box) -> None:
    seen = status(box, secure(run_as_user=1001, capabilities=Capabilities(add_ambient=("NET_BIND_SERVICE",))))
    assert {seen[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0000000000000400"}


def test_privileged_has_what_the_daemon_has(box: Box) -> None:
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert status(box, secure(privileged=True))["CapEff"] == own.split()[1]


def test_user_has_its_groups_and_the_primary_among_them(box: Box) -> None:
    seen = status(box, secure(run_as_username="ada", supplemental_groups=(4001,)))
    assert (seen["Uid"].split()[0], seen["Gid"].split()[0]) == ("1001", "2001")
    assert set(seen["Groups"].split()) == {"2001", "3001", "4001"}


def test_strict_policy_leaves_out_groups_of_the_image(box: Box) -> None:
    seen = status(box, secure(run_as_username="ada", supplemental_groups=(4001,), supplemental_groups_strict=True))
    assert set(seen["Groups"].split()) == {"2001", "4001"}


def test_umask_and_no_new_privileges(box: Box) -> None:
    seen = status(box, secure(no_new_privs=True))
    assert (seen["Umask"], seen["NoNewPrivs"]) == ("0022", "1")


def test_masked_paths_are_empty_and_readonly_paths_refuse_writes(box: Box) -> None:
    script = (
        "busybox cat /proc/kcore /proc/keys; busybox ls /sys/firmware; "
        "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused; busybox id -u"
    )
    assert box.run(box.request(script, secure(masked_paths=MASKED, readonly_paths=READONLY))) == "refused\n0\n"


def test_kernel_filesystems_are_readonly_and_pod_files_are_there(box: Box) -> None:
    text = box.run(box.request("busybox cat /proc/self/mounts; busybox hostname", secure()))
    table = {words[1]: words[3].split(",") for words in (line.split() for line in text.splitlines()) if len(words) > 3}
    assert text.endswith("box\n")
    assert "ro" in table["/sys"]
    assert {"nosuid", "noexec", "nodev"} <= set(table["/proc"])
    writable = ("/dev/shm", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts")
    assert [path for path in writable if "rw" not in table[path]] == []


def test_cgroup_filesystems_refuse_new_groups(box: Box) -> None:
    script = (
        "for top in $(busybox grep -E ' cgroup2? ' /proc/self/mounts | busybox cut -d' ' -f2); "
        "do busybox mkdir $top/x 2>/dev/null && echo made; done; busybox id -u"
    )
    text = box.run(box.request(script, secure()))
    assert text == "0\n"


def test_requested_mounts_keep_access_and_order(box: Box) -> None:
    source = box.directory / "volume"
    (source / "inner").mkdir(parents=True)
    asked = (
        Mount(container_path="/data/inner", host_path=str(source)),
        Mount(container_path="/data", host_path=str(source), readonly=True, options=("noexec",)),
    )
    planned = tuple(PlannedMount(mount=mount, source=mount.host_path) for mount in asked)
    script = (
        "busybox touch /data/inner/made; busybox touch /data/x 2>/dev/null || echo refused; "
        "busybox grep ' /data ' /proc/self/mounts"
    )
    text = box.run(box.request(script, secure(), mounts=planned))
    assert text.startswith("refused\n")
    assert "noexec" in text
    assert (source / "made").exists()


def test_private_mount_with_forced_slave_still_starts(box: Box) -> None:
    mount = Mount(container_path="/data", host_path=str(box.directory), propagation=Propagation.PRIVATE)
    request = box.request("busybox ls /data", secure(), mounts=(PlannedMount(mount=mount, source=mount.host_path),))
    held = Defaults(storage_root=str(box.directory / "storage"))
    assert "rootfs" in box.run(SpecRequest(**{**{f: getattr(request, f) for f in request.__struct_fields__}, "defaults": held}))


def test_devices_are_made_with_owner_and_only_they_open(box: Box) -> None:
    node = DeviceNode(path="/dev/mine", host_path="/dev/null", type="c", major=1, minor=3, mode=0o640, uid=7, gid=8)
    script = "busybox stat -c '%t:%T %a %u:%g' /dev/mine; echo x > /dev/mine && echo wrote"
    assert box.run(box.request(script, secure(), devices=(node,))) == "1:3 640 7:8\nwrote\n"


def test_unlisted_device_cannot_be_opened_even_with_mknod(box: Box) -> None:
    script = "busybox mknod /tmp/kmsg c 1 11 && (busybox head -c 1 /tmp/kmsg >/dev/null) 2>/dev/null || echo refused"
    asked = Capabilities(add=("MKNOD", "SYSLOG"))
    assert box.run(box.request(script, secure(capabilities=asked))) == "refused\n"


def test_privileged_sees_host_devices(box: Box) -> None:
    nodes = tuple(
        DeviceNode(path=n.path, host_path=n.path, type=n.type, major=n.major, minor=n.minor, mode=n.mode, uid=n.uid, gid=n.gid)
        for n in host_nodes()
    )
    text = box.run(box.request("busybox ls /dev", secure(privileged=True), host_devices=nodes))
    assert "kmsg" in text.split()


def test_limits_of_cgroup_and_process_hold(box: Box) -> None:
    resources = Resources(
        memory_limit_bytes=64 << 20, cpu_shares=512, cpu_quota_us=50000, cpu_period_us=100000, oom_score_adj=500
    )
    defaults = Defaults(pids_limit=99, ulimits=(parse_ulimit("nofile=512:1024"),))
    script = "busybox cat /proc/self/oom_score_adj; ulimit -n; ulimit -Hn; busybox cat /proc/self/cgroup"
    text = box.run(box.request(script, secure(), resources=resources, defaults=defaults)).splitlines()
    assert text[:3] == ["500", "512", "1024"]
    assert any(box.id in line for line in text[3:])


def test_lowest_oom_score_is_clamped_where_it_must_be(box: Box) -> None:
    text = box.run(box.request("busybox cat /proc/self/oom_score_adj", secure(), resources=Resources(oom_score_adj=-1000)))
    host = gather()
    assert int(text) == (-1000 if host.may_raise else host.oom_score_adj)


def test_global_readonly_leaves_writable_run_and_tmp(box: Box) -> None:
    script = "busybox touch /etc/x 2>/dev/null || echo refused; busybox touch /run/x /tmp/x /var/tmp/x && echo wrote"
    (box.rootfs / "var/tmp").mkdir(parents=True)
    assert box.run(box.request(script, secure(), defaults=Defaults(read_only=True))) == "refused\nwrote\n"
