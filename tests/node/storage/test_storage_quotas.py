"""Limits of writable layers, where the kernel has them: project quotas of ext4 and xfs, quota groups of btrfs."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.images import directory, file
from support.stores import Store, disk, root_on, run

from criollo.errors import Unsupported
from criollo.linux import mount, quota
from criollo.storage.base import Limit
from criollo.storage.projects import COUNT, FIRST

pytestmark = pytest.mark.node

ID, OTHER, THIRD = "ab" * 32, "cd" * 32, "ef" * 32
LIMIT = Limit(8 << 20)
IMAGE = [directory("open", mode=0o777), file("brought", os.urandom(12 << 20))]


@pytest.fixture(
    scope="module",
    params=[
        ("overlay", "ext4+quota"),
        ("overlay", "xfs+quota"),
        ("vfs", "ext4+quota"),
        ("vfs", "xfs+quota"),
        ("btrfs", "btrfs"),
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    driver, kind = request.param
    with disk(kind) as found:
        yield driver, found


@pytest.fixture
def driver(place: tuple[str, Path]) -> str:
    return place[0]


@pytest.fixture
def root(place: tuple[str, Path]) -> Iterator[Path]:
    with root_on(place[1]) as made:
        yield made


def write(merged: Path, size_mib: int, name: str = "written") -> subprocess.CompletedProcess[str]:
    """As nobody: the host's root is not bound by quotas of ext4 and xfs (CAP_SYS_RESOURCE)."""
    script = f"dd if=/dev/urandom of={name} bs=1M count={size_mib} conv=fsync"
    return as_nobody(merged, script)


def as_nobody(merged: Path, script: str) -> subprocess.CompletedProcess[str]:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-ec", script]
    return subprocess.run(command, cwd=merged / "open", check=False, capture_output=True, text=True)


def test_writes_beyond_the_limit_fail_and_others_go_on(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(IMAGE)
        bound, free = await store.roots.create(ID, names, limit=LIMIT), await store.roots.create(OTHER, names)
        beyond = write(bound, 20)
        assert beyond.returncode != 0
        assert "quota exceeded" in beyond.stderr or "No space left" in beyond.stderr
        assert (6 << 20) <= (bound / "open/written").stat().st_size <= LIMIT.bytes
        assert write(free, 20).returncode == 0
        (bound / "open/written").unlink()
        os.sync()
        assert write(bound, 4, "again").returncode == 0
        await store.roots.remove(ID)
        await store.roots.remove(OTHER)

    run(root, driver, body)


def test_limit_of_the_store_holds_where_no_other_is_given(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(IMAGE)
        bound, wide = await store.roots.create(ID, names), await store.roots.create(OTHER, names, limit=Limit(30 << 20))
        free = await store.roots.create(THIRD, names, limit=Limit())
        assert write(bound, 20).returncode != 0
        assert write(wide, 20).returncode == 0
        assert write(free, 40).returncode == 0
        for container in (ID, OTHER, THIRD):
            await store.roots.remove(container)

    run(root, driver, body, limit=LIMIT)


def test_usage_is_read_from_the_quota(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(IMAGE), limit=Limit(30 << 20))
        assert (await store.roots.usage(ID)).bytes <= 64 << 10
        assert write(merged, 5).returncode == 0
        for number in range(10):
            (merged / f"small{number}").touch()
        os.sync()
        found = await store.roots.usage(ID)
        assert 5 << 20 <= found.bytes <= 6 << 20
        assert found.inodes == 0 if driver == "btrfs" else 11 <= found.inodes <= 18  # overlay keeps some of its own
        await store.roots.remove(ID)

    run(root, driver, body)


def test_limits_outlive_the_process_that_set_them(root: Path, driver: str) -> None:
    async def begin(store: Store) -> None:
        await store.roots.create(ID, await store.add(IMAGE), limit=LIMIT)

    async def go_on(store: Store) -> None:
        merged = store.roots.path(ID)
        other = await store.roots.create(OTHER, [], limit=Limit(30 << 20))
        assert write(merged, 20).returncode != 0
        assert (await store.roots.usage(ID)).bytes >= 6 << 20
        assert (await store.roots.usage(OTHER)).bytes <= 64 << 10
        (other / "open").mkdir(mode=0o777)
        (other / "open").chmod(0o777)
        assert write(other, 20).returncode == 0
        await store.roots.remove(ID)
        await store.roots.remove(OTHER)

    run(root, driver, begin)
    run(root, driver, go_on)


def test_inodes_are_limited(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(IMAGE)
        if driver == "btrfs":
            with pytest.raises(Unsupported, match="btrfs counts none"):
                await store.roots.create(ID, names, limit=Limit(0, 100))
            assert store.roots.ids() == set()
            return
        merged = await store.roots.create(ID, names, limit=Limit(0, 100))
        made = as_nobody(merged, "for i in $(seq 200); do echo > f$i; done")
        assert made.returncode != 0
        assert 80 <= len(os.listdir(merged / "open")) <= 100
        await store.roots.remove(ID)

    run(root, driver, body)


def test_users_of_a_removed_limit_leave_nothing(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(IMAGE)
        for _ in range(5):
            merged = await store.roots.create(ID, names, limit=LIMIT)
            assert write(merged, 6).returncode == 0
            await store.roots.remove(ID)
        await store.emptied()
        async with asyncio.timeout(30):
            while left_in_projects(root):  # xfs takes inodes away in the background
                await asyncio.sleep(0.1)

    run(root, driver, body)


def left_in_projects(root: Path) -> list[quota.Counted]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = [quota.counted(fd, FIRST + number) for number in range(10)]
    finally:
        os.close(fd)
    return [each for each in found if each is not None and any(each)]


def test_each_container_has_a_project_of_its_own_across_restarts(root: Path, driver: str) -> None:
    if driver == "btrfs":
        pytest.skip("btrfs has no projects")

    def project(container: str) -> int:
        fd = os.open(root / "rootfs" / container, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return quota.project_of(fd)
        finally:
            os.close(fd)

    async def first(store: Store) -> None:
        await store.roots.create(ID, [], limit=LIMIT)

    async def second(store: Store) -> None:
        await store.roots.create(OTHER, [], limit=LIMIT)
        await store.roots.create(THIRD, [])
        assert project(THIRD) == 0
        assert project(ID) != project(OTHER)
        assert {project(ID), project(OTHER)} <= set(range(FIRST, FIRST + COUNT))
        for container in (ID, OTHER, THIRD):
            await store.roots.remove(container)

    run(root, driver, first)
    run(root, driver, second)


def test_file_system_without_quotas_is_told_only_when_a_limit_is_asked_for() -> None:
    async def body(store: Store) -> None:
        names = await store.add(IMAGE)
        await store.roots.create(ID, names)
        with pytest.raises(Unsupported, match=r"ext4 of .*/rootfs enforces no project quotas; mount an xfs"):
            await store.roots.create(OTHER, names, limit=LIMIT)
        assert store.roots.ids() == {ID}
        await store.roots.remove(ID)

    async def nothing(store: Store) -> None:
        pass

    with disk("ext4") as place, root_on(place) as root:
        run(root, "overlay", body)
        with pytest.raises(Unsupported, match="enforces no project quotas"):
            run(root, "overlay", nothing, limit=LIMIT)
        assert mount.below(root) == []
