"""pods.files and pods.namespaces with a kernel."""

import asyncio
import os
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.netleaks import mounts_below

from criollo.aio import threads
from criollo.errors import Invalid, Unsupported
from criollo.linux import mount
from criollo.linux.namespaces import is_pinned
from criollo.model.ids import PodId, new_id
from criollo.model.pod import Dns, IdMapping, NamespaceMode, Namespaces, Pod, PodConfig, PodSecurity, PodState, UserNamespace
from criollo.pods import files, namespaces
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

T = TypeVar("T")
ON_HOST = NamespaceMode.NODE


def run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    finally:
        threads.close()


def pod(*, hostname: str = "web-0", dns: Dns | None = None, sysctls: dict[str, str] | None = None, **modes: object) -> Pod:
    security = PodSecurity(namespaces=Namespaces(**modes))  # type: ignore[arg-type]
    config = PodConfig(name="p", uid="u", namespace="n", hostname=hostname, dns=dns, sysctls=sysctls or {}, security=security)
    return Pod(
        id=PodId(new_id()), name="p", config=config, handler="", state=PodState.CREATING, created_ns=0, hostname=hostname
    )


@pytest.fixture
def runroot(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    left = mounts_below(tmp_path)
    for path in left:
        mount.unmount(path, detach=True)
    assert left == []


async def written(each: Pod, runroot: Path, **more: int) -> dict[str, Path]:
    return {name: Path(path) for name, path in (await files.write(each, runroot=runroot, **more)).items()}


def test_files_are_written_and_removed(runroot: Path) -> None:
    each = pod(dns=Dns(servers=("10.0.0.10",), searches=("svc",)))

    async def work() -> None:
        made = await written(each, runroot)
        assert made["hostname"].read_text() == "web-0\n"
        assert made["resolv.conf"].read_text() == "search svc\nnameserver 10.0.0.10\n"
        assert os.path.ismount(made["shm"])
        assert made["hostname"].stat().st_mode & 0o777 == 0o644
        await files.remove(each, runroot=runroot)
        await files.remove(each, runroot=runroot)

    run(work())
    assert list((runroot / "pods").iterdir()) == []


def test_without_dns_the_nodes_resolv_conf_is_copied(runroot: Path) -> None:
    each = pod(dns=Dns())

    async def work() -> None:
        made = await written(each, runroot)
        assert made["resolv.conf"].read_bytes() == Path("/etc/resolv.conf").read_bytes()
        await files.remove(each, runroot=runroot)

    run(work())


def test_host_network_gets_a_copy_of_hosts(runroot: Path) -> None:
    each = pod(network=ON_HOST)

    async def work() -> None:
        made = await written(each, runroot)
        assert made["hosts"].read_bytes() == Path("/etc/hosts").read_bytes()
        assert made["hosts"].stat().st_ino != Path("/etc/hosts").stat().st_ino
        await files.remove(each, runroot=runroot)

    run(work())


def test_host_ipc_gets_the_nodes_shm(runroot: Path) -> None:
    each = pod(ipc=ON_HOST)

    async def work() -> None:
        assert (await written(each, runroot))["shm"] == Path("/dev/shm")
        assert [Path(path).name for path in mounts_below(runroot)] == ["etc"]
        await files.remove(each, runroot=runroot)

    run(work())
    assert Path("/dev/shm").is_dir()


@pytest.mark.parametrize("name", ["hostname", "resolv.conf"])
def test_filling_a_file_starves_only_its_writer(runroot: Path, name: str) -> None:
    each = pod()

    async def work() -> None:
        path = (await written(each, runroot))[name]
        with path.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
            all(file.write(b"x" * 65536) for _ in range(1000))
        assert path.stat().st_size < 2 << 20
        (runroot / "others still write").write_bytes(b"x" * (2 << 20))
        await files.remove(each, runroot=runroot)

    run(work())


def test_shm_has_the_size_and_flags_asked_for(runroot: Path) -> None:
    each = pod()

    async def work() -> None:
        shm = (await written(each, runroot, shm_bytes=8 << 20))["shm"]
        (entry,) = [entry for entry in mount.mounts() if entry.target == str(shm)]
        assert {"nosuid", "nodev", "noexec"} <= set(entry.options)
        facts = os.statvfs(shm)
        assert facts.f_blocks * facts.f_frsize == 8 << 20
        assert shm.stat().st_mode & 0o7777 == 0o1777
        await files.remove(each, runroot=runroot)

    run(work())


def test_a_user_namespaces_root_owns_the_files(runroot: Path) -> None:
    mapping = (IdMapping(host_id=100000, container_id=0, length=65536),)
    each = pod(user=UserNamespace(mode=NamespaceMode.POD, uids=mapping, gids=mapping))

    async def work() -> None:
        made = await written(each, runroot)
        assert {path.stat().st_uid for path in made.values()} == {100000}
        await files.remove(each, runroot=runroot)

    run(work())


def test_a_bad_field_leaves_nothing(runroot: Path) -> None:
    each = pod(dns=Dns(searches=("a\nb",)))

    async def work() -> None:
        with pytest.raises(Invalid):
            await written(each, runroot)

    run(work())
    assert not (runroot / "pods").exists()


def test_a_link_in_place_of_a_pods_directory_is_not_followed_when_removing(runroot: Path, tmp_path: Path) -> None:
    each = pod()
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").touch()
    (runroot / "pods").mkdir()
    (runroot / "pods" / each.id).symlink_to(victim)
    run(files.remove(each, runroot=runroot))
    assert (victim / "kept").exists()


def test_files_that_are_open_do_not_keep_a_pod(runroot: Path) -> None:
    each = pod()

    async def work() -> None:
        made = await written(each, runroot)
        with made["hostname"].open():
            await files.remove(each, runroot=runroot)

    run(work())


def test_a_pods_namespaces_come_and_go(runroot: Path) -> None:
    each = pod()

    async def work() -> None:
        await namespaces.prepare(runroot)
        wish = namespaces.plan(each.config, defaults={"net.core.somaxconn": "99"})
        await namespaces.pin_pod(each, wish, directory=runroot)
        where = namespaces.places(each.id, wish, directory=runroot)
        assert all(is_pinned(Path(path)) for path in where.values())
        assert where == {
            "net": str(runroot / "netns" / each.id),
            "ipc": str(runroot / "ipcns" / each.id),
            "uts": str(runroot / "utsns" / each.id),
        }
        await namespaces.unpin_pod(each, directory=runroot)
        await namespaces.unpin_pod(each, directory=runroot)
        assert not any(Path(path).exists() for path in where.values())

    run(work())
    mount.unmount(runroot / "netns")


def test_a_host_pod_pins_nothing(runroot: Path) -> None:
    each = pod(network=ON_HOST, ipc=ON_HOST)

    async def work() -> None:
        wish = namespaces.plan(each.config, defaults={})
        await namespaces.pin_pod(each, wish, directory=runroot)
        assert namespaces.places(each.id, wish, directory=runroot) == {}
        assert list(runroot.iterdir()) == []

    run(work())


@pytest.mark.parametrize(
    ("name", "value"), [("net.ipv4.ip_local_port_range", "x"), ("net.ipv4.none_such", "1"), ("kernel.shm_none", "1")]
)
def test_a_sysctl_the_kernel_refuses_is_the_requests_fault(runroot: Path, name: str, value: str) -> None:
    each = pod(sysctls={name: value})

    async def work() -> None:
        await namespaces.prepare(runroot)
        with pytest.raises(Invalid) as caught:
            await namespaces.pin_pod(each, namespaces.plan(each.config, defaults={}), directory=runroot)
        assert caught.value.field == f"config.linux.sysctls[{name}]"
        await namespaces.unpin_pod(each, directory=runroot)

    run(work())
    mount.unmount(runroot / "netns")


def test_a_user_namespace_is_made_by_a_worker_and_owns_the_others(runroot: Path) -> None:
    mapping = (IdMapping(host_id=100000, container_id=0, length=65536),)
    each = pod(user=UserNamespace(mode=NamespaceMode.POD, uids=mapping, gids=mapping), sysctls={"net.core.somaxconn": "78"})

    def seen(path: str) -> str:
        argv = ["nsenter", f"--user={path}/userns/{each.id}", f"--net={path}/netns/{each.id}", f"--uts={path}/utsns/{each.id}"]
        script = "cat /proc/self/uid_map /proc/sys/net/core/somaxconn; hostname"
        return subprocess.run([*argv, "sh", "-c", script], capture_output=True, text=True, check=True).stdout

    async def work() -> None:
        await namespaces.prepare(runroot)
        async with Workers() as workers:
            wish = namespaces.plan(each.config, defaults={})
            await namespaces.pin_pod(each, wish, directory=runroot, make_userns=workers.userns)
        assert set(namespaces.places(each.id, wish, directory=runroot)) == {"user", "net", "ipc", "uts"}
        assert (await threads.files(seen, str(runroot))).split() == ["0", "100000", "65536", "78", "web-0"]
        await namespaces.unpin_pod(each, directory=runroot)

    run(work())
    mount.unmount(runroot / "netns")


def test_a_user_namespace_without_a_maker_is_unsupported(runroot: Path) -> None:
    each = pod(user=UserNamespace(mode=NamespaceMode.POD))

    async def work() -> None:
        with pytest.raises(Unsupported):
            await namespaces.pin_pod(each, namespaces.plan(each.config, defaults={}), directory=runroot)

    run(work())
