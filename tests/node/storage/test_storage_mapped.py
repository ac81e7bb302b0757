"""storage.mapped with a kernel: root filesystems whose files belong to the root of a user namespace."""

import asyncio
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from support import leaks

from criollo.aio import threads
from criollo.errors import HostFailed, Unsupported
from criollo.linux import fsmount, idmap, mount, namespaces, procfs
from criollo.linux.namespaces import NamespaceKind
from criollo.model.pod import IdMapping, NamespaceMode, UserNamespace
from criollo.storage.base import Mapped
from criollo.storage.layers import Layers
from criollo.storage.overlay import MAX_LAYERS, Overlay
from criollo.storage.rootfs import RootStore
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

ID, OTHER = "ab" * 32, "cd" * 32
BOTTOM, TOP = "0" * 32, "1" * 32
FIRST_UID, FIRST_GID = 200000, 300000
WISH = UserNamespace(
    mode=NamespaceMode.POD,
    uids=(IdMapping(host_id=FIRST_UID, container_id=0, length=65536),),
    gids=(IdMapping(host_id=FIRST_GID, container_id=0, length=65536),),
)


@pytest.fixture(scope="module")
def user_ns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pinned user namespace."""
    path = tmp_path_factory.mktemp("userns") / "pinned"

    async def make() -> None:
        async with Workers() as workers, workers.userns(WISH, {NamespaceKind.USER}) as made:
            await threads.fresh(namespaces.pin, {NamespaceKind.USER}, {NamespaceKind.USER: path}, made=made)

    asyncio.run(make())
    threads.close()
    yield path
    namespaces.unpin(path)


@pytest.fixture
def mapped(user_ns: Path) -> Mapped:
    return Mapped(user_ns, WISH.uids, WISH.gids)


@pytest.fixture
def root() -> Iterator[Path]:
    """A store's root on a disk of its own; the test must have unmounted all and let go of every descriptor.

    Users of the namespace must pass its directories, and pytest's own are closed to them.
    """
    home = Path(tempfile.mkdtemp(prefix="criollo-", dir="/var/tmp"))
    home.chmod(0o711)
    image, disk = home / "image", home / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "8000", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, disk], check=True)
    place = disk / "root"
    place.mkdir(mode=0o700)
    threads.close()
    descriptors = leaks.descriptors()
    yield place
    threads.close()
    left = mount.below(place)
    for target in mount.below(disk):
        mount.unmount(target, detach=target != str(disk))
    shutil.rmtree(home)
    assert left == []
    assert leaks.new_descriptors(descriptors) == []


class Store:
    def __init__(self, root: Path) -> None:
        self.layers = Layers(root)
        self.roots = RootStore(root, self.layers, Overlay(self.layers))

    async def add(self, name: str, **files: str) -> str:
        staging = await self.layers.stage()
        for path, content in files.items():
            (staging.path / path).write_text(content)
        await self.layers.commit(staging, name)
        return name

    async def emptied(self) -> None:
        while any(self.layers.trash.path.iterdir()):
            await asyncio.sleep(0.01)


def run(root: Path, body: Callable[[Store], Coroutine[object, object, None]]) -> None:
    async def inside() -> None:
        store = Store(root)
        await store.layers.open()
        try:
            await store.roots.open()
            try:
                await body(store)
            finally:
                await store.roots.close()
        finally:
            store.layers.close()

    asyncio.run(inside())


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_files_of_every_layer_belong_to_the_mapped_owners(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        layers = [await store.add(BOTTOM, low="l", both="b"), await store.add(TOP, high="h", both="t")]
        os.chown(store.layers.path(TOP) / "high", 33, 34)
        merged = await store.roots.create(ID, layers, mapped=mapped)
        assert owner(merged) == owner(merged / "low") == (FIRST_UID, FIRST_GID)
        assert owner(merged / "high") == (FIRST_UID + 33, FIRST_GID + 34)
        assert (merged / "both").read_text() == "t"
        assert owner(store.layers.path(BOTTOM) / "low") == (0, 0)
        await store.roots.remove(ID)

    run(root, body)


def test_writes_land_on_the_disk_with_the_hosts_ids(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, [await store.add(TOP, old="o")], mapped=mapped)
        command = "echo more >> old && echo new > new && chown 7:8 new && mkdir -m 700 own && id -u"
        inside = ["nsenter", f"--user={mapped.user_ns}", "--setuid=0", "--setgid=0", "sh", "-ec", command]
        said = subprocess.run(inside, cwd=merged, check=True, capture_output=True, text=True)
        assert said.stdout == "0\n"
        diff = root / "rootfs" / ID / "diff"
        assert owner(diff) == owner(diff / "old") == owner(diff / "own") == (FIRST_UID, FIRST_GID)
        assert owner(diff / "new") == (FIRST_UID + 7, FIRST_GID + 8)
        await store.roots.remove(ID)
        await store.emptied()

    run(root, body)


def test_the_root_directory_keeps_an_owner_that_is_mapped(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        for name, uid, expected in ((BOTTOM, 5, FIRST_UID + 5), (TOP, 70000, FIRST_UID)):
            await store.add(name)
            os.chown(store.layers.path(name), uid, 0)
            assert owner(await store.roots.create(ID, [name], mapped=mapped)) == (expected, FIRST_GID)
            await store.roots.remove(ID)

    run(root, body)


def test_directories_are_closed_until_a_user_namespace_must_pass(root: Path, mapped: Mapped) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    async def body(store: Store) -> None:
        await store.roots.create(ID, [])
        for path in (root, root / "rootfs", root / "rootfs" / ID):
            assert mode(path) == 0o700
        await store.roots.create(OTHER, [], mapped=mapped)
        for path in (root, root / "rootfs", root / "rootfs" / OTHER):
            assert mode(path) == 0o711
        assert mode(root / "rootfs" / ID) == mode(root / "layers") == 0o700
        await store.roots.remove(ID)
        await store.roots.remove(OTHER)
        await store.roots.close()
        await store.roots.open()
        assert mode(root / "rootfs") == 0o711

    run(root, body)


def test_a_closed_directory_above_is_named_and_nothing_is_left(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        above = root.parent.parent
        above.chmod(0o710)
        with pytest.raises(HostFailed, match=f"must pass {above}, which has mode 0710; run chmod o"):
            await store.roots.create(ID, [], mapped=mapped)
        assert store.roots.ids() == set()

    run(root, body)


def test_same_layers_serve_plain_and_mapped_roots(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        layers = [await store.add(BOTTOM, a="a"), await store.add(TOP, b="b")]
        assert owner(await store.roots.create(ID, layers) / "a") == (0, 0)
        assert owner(await store.roots.create(OTHER, layers, mapped=mapped) / "a") == (FIRST_UID, FIRST_GID)
        await store.roots.remove(ID)
        await store.roots.remove(OTHER)

    run(root, body)


def test_only_the_root_filesystem_stays_mounted(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, [await store.add(TOP, a="")], mapped=mapped)
        assert mount.below(root) == [str(merged)]
        await store.roots.remove(ID)
        assert mount.below(root) == []

    run(root, body)


def test_many_layers(root: Path, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        names = [await store.add(f"{number:032x}", **{f"f{number}": ""}) for number in range(MAX_LAYERS)]
        merged = await store.roots.create(ID, names, mapped=mapped)
        assert len(os.listdir(merged)) == MAX_LAYERS
        assert {owner(path) for path in merged.iterdir()} == {(FIRST_UID, FIRST_GID)}
        await store.roots.remove(ID)
        with pytest.raises(Unsupported, match=f"{MAX_LAYERS + 1} layers, overlay takes {MAX_LAYERS}"):
            await store.roots.create(ID, [*names, await store.add("f" * 32)], mapped=mapped)

    run(root, body)


def test_image_is_shown_mapped_and_read_only(root: Path, mapped: Mapped, tmp_path: Path) -> None:
    place = tmp_path / "shown"
    place.mkdir()

    async def body(store: Store) -> None:
        await store.add(TOP, a="")
        await Overlay(store.layers).mount([TOP], place, None, mapped=mapped)
        try:
            assert owner(place / "a") == (FIRST_UID, FIRST_GID)
            with pytest.raises(OSError, match="Read-only"):
                (place / "b").touch()
        finally:
            assert mount.unmount(place)

    run(root, body)


def test_a_namespace_that_is_not_pinned_is_told_and_nothing_is_left(root: Path, mapped: Mapped, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        (tmp_path / "plain").touch()
        with pytest.raises(HostFailed, match="no user namespace is pinned at"):
            await store.roots.create(ID, [], mapped=mapped._replace(user_ns=tmp_path / "plain"))
        assert store.roots.ids() == set()

    run(root, body)


def test_file_system_without_mapped_ids_is_told_and_nothing_is_left(
    root: Path, mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(tree: int, user_ns: int) -> None:
        raise idmap.IdmapRefused(22, "Invalid argument")

    async def body(store: Store) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(idmap, "shift", refuse)
            with pytest.raises(Unsupported, match=r"ext4 of .*/layers has no id-mapped mounts in Linux .*; keep the root on"):
                await store.roots.create(ID, [], mapped=mapped)
        assert store.roots.ids() == set()
        await store.roots.create(ID, [], mapped=mapped)
        await store.roots.remove(ID)

    run(root, body)


def test_kernel_whose_overlay_takes_no_mapped_layers_is_told(
    root: Path, mapped: Mapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(22, "Invalid argument")

    async def body(store: Store) -> None:
        real = mount.mount
        monkeypatch.setattr(procfs, "kernel_version", lambda: (5, 18))
        monkeypatch.setattr(mount, "mount", lambda *args: refuse() if args[0] == "overlay" else real(*args))
        with pytest.raises(Unsupported, match=r"overlay takes id-mapped layers since Linux 5\.19"):
            await store.roots.create(ID, [], mapped=mapped)
        assert store.roots.ids() == set()

    run(root, body)


def test_clone_that_is_not_attached_leaves_nothing(tmp_path: Path, user_ns: Path) -> None:
    fd = os.open(user_ns, os.O_RDONLY)
    tree = fsmount.clone(tmp_path)
    try:
        idmap.shift(tree, fd)
        with pytest.raises(OSError, match="not permitted"):
            idmap.shift(tree, fd)  # once mapped, always mapped
    finally:
        os.close(tree)
        os.close(fd)
    assert mount.below(tmp_path) == []


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_shift_refuses_file_systems_without_owners_of_their_own(kind: str, user_ns: Path) -> None:
    fd = os.open(user_ns, os.O_RDONLY)
    tree = fsmount.clone("/proc" if kind == "proc" else "/sys")
    try:
        with pytest.raises(idmap.IdmapRefused):
            idmap.shift(tree, fd)
    finally:
        os.close(tree)
        os.close(fd)
