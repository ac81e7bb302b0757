"""linux.namespaces with a kernel."""

import asyncio
import ctypes
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support import leaks
from support.daemon import wait_for
from support.netleaks import mounts_below

from criollo.aio import threads
from criollo.linux import libc, mount, namespaces, netlink, procfs, proctree
from criollo.linux.namespaces import NamespaceKind

pytestmark = pytest.mark.node

T = TypeVar("T")
THREE = (NamespaceKind.NET, NamespaceKind.IPC, NamespaceKind.UTS)


def fresh(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    return asyncio.run(threads.fresh(function, *args, **kwargs))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A namespaces directory; the test must have let go of everything but the shared mount."""
    before = leaks.descriptors()
    namespaces.prepare_directory(tmp_path)
    yield tmp_path
    left = [path for path in mounts_below(tmp_path) if path != str(tmp_path / "netns")]
    for path in mounts_below(tmp_path):
        mount.unmount(path, detach=True)
    assert left == []
    assert leaks.new_descriptors(before) == []
    assert [path for kind in NamespaceKind for path in namespaces.directory_of(tmp_path, kind).iterdir()] == []


@pytest.fixture
def paths(directory: Path) -> Iterator[dict[NamespaceKind, Path]]:
    """Where a pod's namespaces go; let go of at the end."""
    where = {kind: namespaces.directory_of(directory, kind) / ("a" * 64) for kind in NamespaceKind}
    yield where
    for path in where.values():
        namespaces.unpin(path)


def test_pinned_namespaces_are_new_and_stay(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths, hostname="web-0")
    for kind in THREE:
        assert namespaces.is_pinned(paths[kind])
        assert paths[kind].stat().st_ino != os.stat(f"/proc/self/ns/{kind}").st_ino


def test_pinning_leaves_the_callers_namespaces_alone(paths: dict[NamespaceKind, Path]) -> None:
    before = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in THREE}, socket.gethostname()
    fresh(namespaces.pin, THREE, paths, hostname="web-0", sysctls={"kernel.msgmax": "4096", "net.core.somaxconn": "77"})
    assert ({kind: os.readlink(f"/proc/self/ns/{kind}") for kind in THREE}, socket.gethostname()) == before


def test_lo_is_up_in_the_new_namespace(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths)

    def reach_loopback() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=10):
            return True

    assert fresh(namespaces.run_in, paths[NamespaceKind.NET], reach_loopback)


def test_hostname_is_set_inside(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths, hostname="web-0")

    def inside() -> str:
        fd = os.open(paths[NamespaceKind.UTS], os.O_RDONLY)
        libc.setns(fd, libc.CLONE_NEWUTS)
        os.close(fd)
        return socket.gethostname()

    assert fresh(inside) == "web-0"


def test_sysctls_are_written_inside_only(paths: dict[NamespaceKind, Path]) -> None:
    host = {
        name: Path(f"/proc/sys/{name}").read_text() for name in ("kernel/msgmax", "net/core/somaxconn", "fs/mqueue/msg_max")
    }
    wish = {"kernel.msgmax": "4096", "net.core.somaxconn": "77", "fs.mqueue.msg_max": "5"}
    fresh(namespaces.pin, THREE, paths, sysctls=wish)

    def inside() -> dict[str, str]:
        for kind, flag in ((NamespaceKind.IPC, libc.CLONE_NEWIPC), (NamespaceKind.NET, libc.CLONE_NEWNET)):
            fd = os.open(paths[kind], os.O_RDONLY)
            libc.setns(fd, flag)
            os.close(fd)
        return {name: Path("/proc/sys", *name.split(".")).read_text().strip() for name in wish}

    assert fresh(inside) == wish
    assert {name: Path(f"/proc/sys/{name}").read_text() for name in host} == host


def test_a_refused_value_names_the_sysctls_file(paths: dict[NamespaceKind, Path]) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        fresh(namespaces.pin, THREE, paths, sysctls={"net.ipv4.ip_local_port_range": "x"})
    assert caught.value.filename == "/proc/sys/net/ipv4/ip_local_port_range"


def test_an_unknown_sysctl_names_its_file(paths: dict[NamespaceKind, Path]) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        fresh(namespaces.pin, THREE, paths, sysctls={"net.ipv4.none_such": "1"})
    assert caught.value.filename == "/proc/sys/net/ipv4/none_such"


def test_a_sysctl_file_that_is_not_the_kernels_is_refused(paths: dict[NamespaceKind, Path], tmp_path: Path) -> None:
    """Another filesystem mounted over a part of /proc/sys, in a mount namespace of the thread's own."""

    def inside() -> int:
        libc.unshare(libc.CLONE_NEWNS)
        mount.make_private("/", recursive=True)
        mount.mount("tmpfs", "/proc/sys/net/core", "tmpfs")
        Path("/proc/sys/net/core/somaxconn").touch()
        try:
            namespaces.write_sysctl("net.core.somaxconn", "1")
        except OSError as error:
            return error.errno or 0
        return 0

    assert fresh(inside) == errno.EXDEV


def test_unpin_removes_and_can_be_repeated(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths)
    assert namespaces.unpin(paths[NamespaceKind.NET])
    assert not namespaces.unpin(paths[NamespaceKind.NET])
    assert not paths[NamespaceKind.NET].exists()


def test_unpin_removes_a_plain_file(paths: dict[NamespaceKind, Path]) -> None:
    paths[NamespaceKind.NET].touch()
    assert not namespaces.is_pinned(paths[NamespaceKind.NET])
    assert namespaces.unpin(paths[NamespaceKind.NET])


def test_unpin_does_not_follow_a_link(paths: dict[NamespaceKind, Path], tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    paths[NamespaceKind.NET].symlink_to(tmp_path / "victim")
    namespaces.unpin(paths[NamespaceKind.NET])
    assert (tmp_path / "victim").exists()


def test_unpin_removes_stacked_mounts(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths)
    mount.bind("/proc/self/ns/net", paths[NamespaceKind.NET])
    assert namespaces.unpin(paths[NamespaceKind.NET])
    assert not paths[NamespaceKind.NET].exists()


def test_pinning_over_something_is_refused(paths: dict[NamespaceKind, Path]) -> None:
    paths[NamespaceKind.NET].touch()
    with pytest.raises(FileExistsError):
        fresh(namespaces.pin, THREE, paths)


def test_a_user_namespace_must_be_given(paths: dict[NamespaceKind, Path]) -> None:
    with pytest.raises(OSError, match="cannot make this kind"):
        fresh(namespaces.pin, (*THREE, NamespaceKind.USER), paths)


def test_namespaces_made_elsewhere_are_set_up_and_pinned(paths: dict[NamespaceKind, Path]) -> None:
    """As with user namespaces: a child made them."""
    kinds = (*THREE, NamespaceKind.USER)
    child = subprocess.Popen(["unshare", "-U", "-r", "-n", "-i", "-u", "sh", "-c", "echo ready; exec cat"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdout.readline()
        made = {kind: os.open(f"/proc/{child.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds}
        numbers = {kind: os.fstat(fd).st_ino for kind, fd in made.items()}
        fresh(namespaces.pin, kinds, paths, hostname="mapped", sysctls={"net.ipv4.ip_default_ttl": "33"}, made=made)
        for fd in made.values():
            os.close(fd)
    finally:
        child.communicate()
    assert {kind: paths[kind].stat().st_ino for kind in kinds} == numbers
    ttl = fresh(
        namespaces.run_in, paths[NamespaceKind.NET], lambda: Path("/proc/sys/net/ipv4/ip_default_ttl").read_text().strip()
    )
    assert ttl == "33"


def test_preparing_twice_mounts_once(directory: Path) -> None:
    namespaces.prepare_directory(directory)
    assert mounts_below(directory) == [str(directory / "netns")]


def test_netns_directory_is_a_shared_mount(directory: Path) -> None:
    (entry,) = [entry for entry in mount.mounts() if entry.target == str(directory / "netns")]
    assert entry.is_shared


def test_what_ip_netns_does_to_the_directory_hides_nothing(directory: Path, paths: dict[NamespaceKind, Path]) -> None:
    """iproute2: make the directory's mount shared; only if that fails, mount it over itself."""
    fresh(namespaces.pin, THREE, paths)
    mount.make_shared(directory / "netns")
    assert namespaces.is_pinned(paths[NamespaceKind.NET])


def test_setting_up_an_unknown_link_is_an_error() -> None:
    with pytest.raises(OSError, match="No such device"):
        netlink.set_up("none-such")


def test_run_in_gives_back_what_the_function_raises(paths: dict[NamespaceKind, Path]) -> None:
    fresh(namespaces.pin, THREE, paths)

    def fail() -> None:
        raise ctypes.ArgumentError("seen")

    with pytest.raises(ctypes.ArgumentError):
        fresh(namespaces.run_in, paths[NamespaceKind.NET], fail)


@pytest.fixture
def holder() -> Iterator[int]:
    """A process that is the first of a PID namespace of its own."""
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"]) as process:
        wait_for(lambda: proctree.children(process.pid))
        [child] = proctree.children(process.pid)
        wait_for(lambda: os.stat(f"/proc/{child}/ns/pid").st_ino != os.stat("/proc/self/ns/pid").st_ino)
        yield child
        process.kill()


def test_a_namespace_of_a_process_outlives_it_as_a_file(paths: dict[NamespaceKind, Path], holder: int) -> None:
    started = procfs.start_time(holder)
    assert started is not None
    inode = os.stat(f"/proc/{holder}/ns/pid").st_ino
    assert namespaces.pin_of(holder, started, NamespaceKind.PID, paths[NamespaceKind.PID])
    os.kill(holder, signal.SIGKILL)
    wait_for(lambda: not procfs.is_alive(holder, started))
    assert namespaces.is_pinned(paths[NamespaceKind.PID])
    assert paths[NamespaceKind.PID].stat().st_ino == inode


def test_a_process_that_only_has_the_number_is_not_taken(paths: dict[NamespaceKind, Path], holder: int) -> None:
    assert not namespaces.pin_of(holder, (procfs.start_time(holder) or 0) + 1, NamespaceKind.PID, paths[NamespaceKind.PID])
    assert not paths[NamespaceKind.PID].exists()


def test_a_process_that_has_ended_is_not_taken(paths: dict[NamespaceKind, Path]) -> None:
    process = subprocess.Popen(["true"])
    started = procfs.start_time(process.pid)
    process.wait()
    assert not namespaces.pin_of(process.pid, started or 0, NamespaceKind.PID, paths[NamespaceKind.PID])
    assert not paths[NamespaceKind.PID].exists()


def test_a_place_where_nothing_can_be_is_an_error(paths: dict[NamespaceKind, Path], holder: int) -> None:
    with pytest.raises(OSError, match="No such file"):
        namespaces.pin_of(
            holder, procfs.start_time(holder) or 0, NamespaceKind.PID, paths[NamespaceKind.PID].parent / "no/such/place"
        )
