"""Attacks on what makes a container contained, each from inside one, or by an image that was made for it."""

import contextlib
import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import Daemon, wait_for
from support.images import Entry, busybox_layer, char_device, fifo, file, make_image, push, symlink, whiteout
from support.registry import Registry

pytestmark = pytest.mark.node

handlers = pytest.mark.parametrize("handler", ["crun", "runc"])
# What kubelet sends for ProcMount Default.
MASKED = ("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware")
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
RUNTIMES = ("/usr/bin/crun", "/usr/sbin/runc", "/usr/bin/runc", "/usr/bin/conmon")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host that must stay as it is."""
    place = tmp_path / "canary"
    place.mkdir()
    (place / "f").write_text("same")
    (place / "ptmx").write_text("same")
    yield place
    assert {each.name: each.read_text() for each in place.iterdir()} == {"f": "same", "ptmx": "same"}


def pushed(daemon: Daemon, registry: Registry, *layers: Any, **config: Any) -> str:
    """The reference of an image that is here now."""
    name = f"hostile-{uuid.uuid4().hex[:8]}"
    push(registry, name, "latest", make_image([busybox_layer(), *layers], config={"Env": [f"N={name}"], **config}))
    daemon.pull(registry.reference(name))
    return registry.reference(name)


def sleeping(daemon: Daemon, image: str, handler: str = "", **fields: Any) -> str:
    config = daemon.container_config(image, "sleep", "1000")
    for name, value in fields.items():
        setattr(config, name, value)
    return daemon.run_container(daemon.run_pod(handler=handler), config)


def refused(call: Any) -> str:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return str(error.value.details())


def sums() -> dict[str, str]:
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in RUNTIMES if os.path.exists(path)}


# CVE-2019-5736, CVE-2016-9962.
@handlers
def test_program_that_is_the_runtime_itself_changes_no_runtime(daemon: Daemon, registry: Registry, handler: str) -> None:
    before = sums()
    bad = pushed(daemon, registry, [file("bin/bad", "#!/proc/self/exe\n", mode=0o755)])
    overwrite = "for p in /proc/[0-9]*/exe; do (echo broken > $p) 2>/dev/null; done; true"
    pod = daemon.run_pod(handler=handler)
    container = daemon.run_container(pod, daemon.container_config(bad, "sh", "-c", f"while :; do {overwrite}; done"))
    for _ in range(5):
        with contextlib.suppress(grpc.RpcError):
            daemon.exec(container, "/bin/bad", timeout=5)
    assert daemon.output(container, "echo", "alive") == "alive\n"
    daemon.remove_pod(pod)
    assert sums() == before


# CVE-2024-21626.
@handlers
def test_working_directory_cannot_be_a_descriptor(daemon: Daemon, registry: Registry, image: str, handler: str) -> None:
    pod = daemon.run_pod(handler=handler)
    for number in (3, 7, 8, 63):
        config = daemon.container_config(image, "pwd")
        config.working_dir = f"/proc/self/fd/{number}"
        assert "working_dir" in refused(lambda config=config: daemon.create(pod, config))
    by_image = pushed(daemon, registry, WorkingDir="/proc/self/fd/8")
    assert "WorkingDir" in refused(lambda: daemon.create(pod, daemon.container_config(by_image, "pwd")))
    by_link = pushed(daemon, registry, [symlink("way", "/proc/self/fd/8")], WorkingDir="/way/../..")
    with contextlib.suppress(grpc.RpcError):  # refused is as good
        container = daemon.run_container(pod, daemon.container_config(by_link, "sleep", "1000"))
        assert daemon.output(container, "ls", "/proc/self/cwd/bin/busybox") == "/proc/self/cwd/bin/busybox\n"


@handlers
def test_no_descriptor_of_the_host_reaches_a_process(daemon: Daemon, image: str, handler: str) -> None:
    pod = daemon.run_pod(handler=handler)
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", "ls -l /proc/self/fd; sleep 1000"))
    wait_for(lambda: "total" in daemon.container_log(container) or "->" in daemon.container_log(container))
    for listing in (daemon.container_log(container), daemon.output(container, "ls", "-l", "/proc/self/fd")):
        targets = {line.split(" -> ")[1] for line in listing.splitlines() if " -> " in line}
        assert {t for t in targets if not t.startswith(("pipe:", "/dev/null", "/proc/"))} == set()


# CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579.
@handlers
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_image_whose_kernel_directory_is_a_link_is_refused(
    daemon: Daemon, registry: Registry, handler: str, name: str, canary: Path
) -> None:
    layer: list[Entry] = [symlink(name, str(canary))]
    bad = pushed(daemon, registry, [whiteout(name)], layer)
    assert f"/{name}" in refused(lambda: sleeping(daemon, bad, handler))


@handlers
@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys/fs", "/dev"])
def test_volume_of_an_image_over_the_kernels_files_is_refused(
    daemon: Daemon, registry: Registry, handler: str, path: str
) -> None:
    bad = pushed(daemon, registry, Volumes={path: {}})
    refused(lambda: sleeping(daemon, bad, handler))


@handlers
@pytest.mark.parametrize("path", ["/proc", "/proc/sys", "/", "//", "/x/../proc"])
def test_mount_over_the_kernels_files_is_refused(daemon: Daemon, image: str, handler: str, path: str, canary: Path) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.mounts.add(container_path=path, host_path=str(canary))
    pod = daemon.run_pod(handler=handler)
    assert "container_path" in refused(lambda: daemon.create(pod, config))


# CVE-2023-25809, CVE-2025-31133.
@handlers
def test_kernel_files_that_reach_the_host_cannot_be_written(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.masked_paths.extend(MASKED)
    config.linux.security_context.readonly_paths.extend(READONLY)
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for path in (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/proc/irq/default_smp_affinity",
    ):
        said = daemon.exec(container, "sh", "-c", f": >> {path}")
        assert said.exit_code != 0, path
    tops = "$(busybox grep -E ' cgroup2? ' /proc/self/mounts | busybox cut -d' ' -f2)"
    script = f"n=0; for top in {tops}; do n=1; busybox mkdir $top/x 2>/dev/null && echo made; done; echo $n"
    assert daemon.output(container, "sh", "-c", script) == "1\n"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@handlers
def test_pod_mate_that_swaps_a_mount_target_reaches_nothing(
    daemon: Daemon, image: str, handler: str, tmp_path: Path, canary: Path
) -> None:
    """CVE-2021-30465: a volume whose directory becomes a link while another container's mount goes below it."""
    shared = tmp_path / "shared"
    (shared / "a").mkdir(parents=True)
    pod = daemon.run_pod(handler=handler)
    swap = f"while :; do mv /v/a /v/b; ln -s {canary} /v/a; rm /v/a; mv /v/b /v/a; done"
    attacker = daemon.container_config(image, "busybox", "sh", "-c", swap, name="attacker")
    attacker.mounts.add(container_path="/v", host_path=str(shared))
    daemon.run_container(pod, attacker)
    mounts = Path("/proc/self/mounts").read_text().count(str(canary))
    for number in range(8):
        config = daemon.container_config(image, "sh", "-c", "echo seen > /v/a/inner/f; true", name=f"c{number}")
        config.mounts.add(container_path="/v", host_path=str(shared))
        config.mounts.add(container_path="/v/a/inner", host_path=str(tmp_path / f"other{number}"))
        try:
            daemon.run_container(pod, config)
        except grpc.RpcError:
            continue
    assert Path("/proc/self/mounts").read_text().count(str(canary)) == mounts
    assert "inner" not in os.listdir(canary)


# Devices and setuid.
@handlers
def test_device_nodes_of_an_image_open_nothing(daemon: Daemon, registry: Registry, handler: str) -> None:
    bad = pushed(daemon, registry, [char_device("kmsg", 1, 11), char_device("mem", 1, 1)])
    container = sleeping(daemon, bad, handler)
    for path in ("/kmsg", "/mem"):
        assert daemon.exec(container, "sh", "-c", f"head -c 1 {path}").exit_code != 0
    assert daemon.exec(container, "busybox", "mknod", "/made", "c", "1", "11").exit_code != 0


@handlers
def test_setuid_gives_no_more_than_the_pod_has(daemon: Daemon, registry: Registry, handler: str) -> None:
    busybox = Path("/bin/busybox").read_bytes()
    suid = pushed(daemon, registry, [file("bin/busybox-suid", busybox, mode=0o4755)])
    pod = daemon.run_pod(handler=handler)
    for no_new_privs in (False, True):
        config = daemon.container_config(suid, "sleep", "1000", name=f"n{no_new_privs}")
        config.linux.security_context.run_as_user.value = 1000
        config.linux.security_context.no_new_privs = no_new_privs
        config.linux.security_context.capabilities.drop_capabilities.append("ALL")
        container = daemon.run_container(pod, config)
        seen = dict(
            line.split(":\t", 1)
            for line in daemon.output(container, "/bin/busybox-suid", "cat", "/proc/self/status").splitlines()
            if ":\t" in line
        )
        assert {seen[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0000000000000000"}
        if no_new_privs:
            assert set(seen["Uid"].split()) == {"1000"}


# Accounts.
@pytest.mark.parametrize("name", ["etc/passwd", "etc/group"])
def test_accounts_that_are_a_link_are_read_inside_the_image(
    daemon: Daemon, registry: Registry, name: str, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mallory:x:0:0::/:/bin/sh\n")
    bad = pushed(daemon, registry, [whiteout(name)], [symlink(name, str(outside))])
    config = daemon.container_config(bad, "true")
    config.linux.security_context.run_as_username = "mallory"
    pod = daemon.run_pod()
    assert "mallory" in refused(lambda: daemon.create(pod, config))


def test_accounts_that_never_end_are_refused_in_time(daemon: Daemon, registry: Registry) -> None:
    for entry in (char_device("etc/passwd", 1, 5), fifo("etc/passwd")):
        bad = pushed(daemon, registry, [whiteout("etc/passwd")], [entry])
        config = daemon.container_config(bad, "true")
        config.linux.security_context.run_as_username = "root"
        pod = daemon.run_pod()
        refused(lambda config=config, pod=pod: daemon.create(pod, config))


@handlers
def test_unknown_user_and_group_get_their_lines_and_a_home(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.run_as_user.value = 4242
    config.linux.security_context.run_as_group.value = 4343
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert daemon.output(container, "id", "-un") == "4242\n"
    assert daemon.output(container, "id", "-gn") == "4343\n"
    assert daemon.output(container, "sh", "-c", "echo $HOME") == "/\n"
    assert daemon.exec(container, "sh", "-c", "echo x >> /etc/passwd").exit_code != 0
    status = daemon.status(container)
    assert (status.user.linux.uid, status.user.linux.gid, list(status.user.linux.supplemental_groups)) == (4242, 4343, [4343])


@handlers
@pytest.mark.parametrize(("policy", "groups"), [(0, {1000, 2000, 4001}), (1, {1000, 4001})])
def test_groups_of_the_image_count_by_the_policy(
    daemon: Daemon, image: str, handler: str, policy: int, groups: set[int]
) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.run_as_username = "alice"
    config.linux.security_context.supplemental_groups.append(4001)
    config.linux.security_context.supplemental_groups_policy = policy
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert {int(word) for word in daemon.output(container, "id", "-G").split()} == groups
    assert set(daemon.status(container).user.linux.supplemental_groups) == groups


@pytest.mark.parametrize("home", ["/a\nroot::0:0::/:/bin/sh", "/a\rx"])
def test_home_that_would_add_a_line_is_refused(daemon: Daemon, image: str, home: str) -> None:
    config = daemon.container_config(image, "true")
    config.linux.security_context.run_as_user.value = 4242
    config.envs.add(key="HOME", value=home.encode())
    pod = daemon.run_pod()
    assert "HOME" in refused(lambda: daemon.create(pod, config))


# CVE-2022-0811.
@pytest.mark.parametrize("value", ["1+kernel.core_pattern=|/x", "1\nkernel.core_pattern=x", "1=2"])
def test_value_of_a_sysctl_adds_no_other(daemon: Daemon, value: str) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    config = daemon.pod_config()
    config.linux.sysctls["kernel.shm_rmid_forced"] = value
    assert "kernel.shm_rmid_forced" in refused(lambda: daemon.run_pod(config))
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@handlers
def test_readonly_mount_is_readonly_all_the_way_down(daemon: Daemon, image: str, handler: str, tmp_path: Path) -> None:
    """Recursive read-only: refused where the runtime cannot, never just ignored."""
    outer, inner = tmp_path / "outer", tmp_path / "outer/inner"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "inner", str(inner)], check=True)
    try:
        config = daemon.container_config(image, "sleep", "1000")
        config.mounts.add(container_path="/v", host_path=str(outer), readonly=True, recursive_read_only=True)
        pod = daemon.run_pod(handler=handler)
        said = ""
        try:
            container = daemon.run_container(pod, config)
        except grpc.RpcError as error:
            said = str(error.details())
        assert "recursive" in said or daemon.exec(container, "touch", "/v/inner/x").exit_code != 0
        daemon.remove_pod(pod)
    finally:
        subprocess.run(["umount", "-l", str(inner)], check=True)


def test_recursive_read_only_contradictions_are_told(daemon: Daemon, image: str, tmp_path: Path) -> None:
    pod = daemon.run_pod()
    for fields, words in (
        ({"readonly": False}, "recursive read-only mount conflicts with read-write mount"),
        ({"readonly": True, "propagation": pb.PROPAGATION_HOST_TO_CONTAINER}, "requires private propagation"),
    ):
        config = daemon.container_config(image, "true")
        config.mounts.add(container_path="/v", host_path=str(tmp_path), recursive_read_only=True, **fields)
        assert words in refused(lambda config=config: daemon.create(pod, config))


# CVE-2022-27652, CVE-2022-29162.
@handlers
def test_exec_of_another_user_holds_no_capability(daemon: Daemon, image: str, handler: str) -> None:
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.run_as_user.value = 1000
    config.linux.security_context.capabilities.add_capabilities.append("NET_ADMIN")
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    first = Path(f"/proc/{daemon.info(container)['pid']}/status").read_text()
    for text in (first, daemon.output(container, "cat", "/proc/self/status")):
        seen = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert {seen[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0000000000000000"}
        assert seen["CapBnd"] == "00000000000015fb"


# CVE-2022-2995: a file that all but one group may read.
@handlers
def test_who_is_in_a_group_cannot_step_out_of_it(daemon: Daemon, registry: Registry, handler: str) -> None:
    entry = file("secret", "for others", mode=0o604, uid=0, gid=2000)
    image = pushed(daemon, registry, [entry])
    config = daemon.container_config(image, "sleep", "1000")
    config.linux.security_context.run_as_user.value = 1000
    config.linux.security_context.run_as_group.value = 2000
    config.linux.security_context.supplemental_groups.append(3000)
    container = daemon.run_container(daemon.run_pod(handler=handler), config)
    assert daemon.exec(container, "cat", "/secret").exit_code != 0


# CVE-2025-4437.
def test_accounts_of_many_gigabytes_are_refused_in_time(daemon: Daemon, registry: Registry) -> None:
    bad = pushed(daemon, registry, [file("etc/group", b"x" * (11 << 20))])
    config = daemon.container_config(bad, "true")
    config.linux.security_context.run_as_username = "alice"
    pod = daemon.run_pod()
    assert "etc/group" in refused(lambda: daemon.create(pod, config))
