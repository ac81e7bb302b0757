"""storage.rootfs and storage.overlay with a kernel: mounts, many layers, busy ones, full disks, nothing left."""

import asyncio
import os
import stat
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support import leaks
from support.waiting import until

from criollo.aio import threads
from criollo.errors import Exhausted, HostFailed, Invalid, Unsupported
from criollo.linux import fsmount, mount
from criollo.storage.base import Usage
from criollo.storage.layers import Layers
from criollo.storage.overlay import Overlay
from criollo.storage.rootfs import RootStore

pytestmark = pytest.mark.node

ID = "ab" * 32
BOTTOM, TOP = "0" * 32, "1" * 32


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 of 64 MiB."""
    image, place = tmp_path_factory.mktemp("image") / "disk", tmp_path_factory.mktemp("disk")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "20000", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture
def root(disk: Path) -> Iterator[Path]:
    """A store's root; the test must have unmounted what it mounted and let go of every descriptor."""
    place = disk / "root"
    place.mkdir()
    threads.close()
    descriptors = leaks.descriptors()
    yield place
    threads.close()
    left = mount.below(place)
    for target in left:
        mount.unmount(target, detach=True)
    subprocess.run(["rm", "-rf", place], check=True)
    assert left == []
    assert leaks.new_descriptors(descriptors) == []


class Store:
    def __init__(self, root: Path) -> None:
        self.layers = Layers(root)
        self.driver = Overlay(self.layers)
        self.roots = RootStore(root, self.layers, self.driver)

    async def add(self, name: str, **files: str) -> str:
        staging = await self.layers.stage()
        for path, content in files.items():
            (staging.path / path).write_text(content)
        await self.layers.commit(staging, name)
        return name


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


def test_container_sees_its_layers_and_writes_above_them(root: Path) -> None:
    async def body(store: Store) -> None:
        await store.add(BOTTOM, a="bottom", b="bottom")
        await store.add(TOP, b="top")
        merged = await store.roots.create(ID, [BOTTOM, TOP])
        assert merged == store.roots.path(ID)
        assert (merged / "a").read_text() == "bottom"
        assert (merged / "b").read_text() == "top"
        (merged / "c").write_text("written")
        (merged / "a").unlink()
        assert (store.layers.path(BOTTOM) / "a").exists()
        assert sorted(os.listdir(root / "rootfs" / ID / "diff")) == ["a", "c"]
        assert store.roots.ids() == {ID}
        await store.roots.remove(ID)
        assert store.roots.ids() == set()
        await until(lambda: os.listdir(root / "trash") == [])

    run(root, body)


def test_no_layers_and_one_layer(root: Path) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, [])
        assert os.listdir(merged) == []
        (merged / "f").touch()
        await store.roots.remove(ID)
        merged = await store.roots.create(ID, [await store.add(TOP, a="")])
        assert os.listdir(merged) == ["a"]
        await store.roots.remove(ID)

    run(root, body)


def test_root_directory_looks_like_that_of_the_top_layer(root: Path) -> None:
    async def body(store: Store) -> None:
        await store.add(TOP)
        store.layers.path(TOP).chmod(0o1751)
        os.chown(store.layers.path(TOP), 5, 6)
        status = os.stat(await store.roots.create(ID, [TOP]))
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1751, 5, 6)
        await store.roots.remove(ID)

    run(root, body)


def test_everything_may_be_repeated(root: Path) -> None:
    async def body(store: Store) -> None:
        await store.roots.unmount(ID)
        await store.roots.remove(ID)
        await store.roots.create(ID, [])
        (store.roots.path(ID) / "old").touch()
        merged = await store.roots.create(ID, [])
        assert os.listdir(merged) == []
        await store.roots.unmount(ID)
        await store.roots.unmount(ID)
        await store.roots.remove(ID)
        await store.roots.remove(ID)

    run(root, body)


def test_volatile_is_used_where_asked(root: Path) -> None:
    async def body(store: Store) -> None:
        for volatile in (True, False):
            merged = await store.roots.create(ID, [], volatile=volatile)
            options = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(merged) in line)
            assert ("volatile" in options) is volatile
            await store.roots.remove(ID)

    run(root, body)


def test_busy_root_is_detached(root: Path) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, [])
        with (merged / "open").open("w"):
            await store.roots.remove(ID)
            assert mount.below(root) == []
        assert store.roots.ids() == set()

    run(root, body)


def test_failed_create_leaves_nothing(root: Path) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(HostFailed):
            await store.roots.create(ID, [BOTTOM, TOP])  # no such layers
        assert store.roots.ids() == set()
        with pytest.raises(Invalid):
            await store.roots.create("../x", [])

    run(root, body)


async def many(store: Store, count: int) -> list[str]:
    return [await store.add(f"{number:032x}", **{f"f{number}": ""}) for number in range(count)]


@pytest.mark.parametrize("count", [100, 130, 500])
def test_many_layers(root: Path, count: int) -> None:
    async def body(store: Store) -> None:
        names = await many(store, count)
        merged = await store.roots.create(ID, names)
        assert len(os.listdir(merged)) == count
        (merged / "f0").unlink()
        await store.roots.remove(ID)

    run(root, body)


def test_too_many_layers_are_told_with_the_limit(root: Path) -> None:
    async def body(store: Store) -> None:
        names = await many(store, 501)
        with pytest.raises(Unsupported, match="image has 501 layers, overlay takes 500 here; flatten the image"):
            await store.roots.create(ID, names)
        assert store.roots.ids() == set()

    run(root, body)


def test_kernel_without_the_newer_calls_tells_the_lower_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise fsmount.FsmountRefused(38, "no such call")

    async def body(store: Store) -> None:
        names = await many(store, 130)
        monkeypatch.setattr(fsmount, "mount", refuse)
        with pytest.raises(Unsupported, match=r"image has 130 layers, overlay takes 1[01]\d here"):
            await store.roots.create(ID, names)

    run(root, body)


def test_image_is_mounted_read_only(root: Path) -> None:
    async def body(store: Store) -> None:
        await store.add(BOTTOM, a="bottom")
        await store.add(TOP, b="top")
        target = root / "image"
        target.mkdir()
        for layers in ([], [BOTTOM], [BOTTOM, TOP]):
            await store.driver.mount(layers, target, None)
            assert sorted(os.listdir(target)) == ["a", "b"][: len(layers)]
            with pytest.raises(OSError, match="Read-only"):
                (target / "new").touch()
            assert mount.unmount(target)
        for layers in ([BOTTOM], [BOTTOM, TOP]):
            assert os.access(store.layers.path(layers[-1]), os.W_OK)

    run(root, body)


def test_usage_counts_what_was_written(root: Path) -> None:
    async def body(store: Store) -> None:
        assert await store.roots.usage(ID) == (0, 0)
        merged = await store.roots.create(ID, [await store.add(TOP, a="x" * 100_000)])
        empty = await store.roots.usage(ID)
        (merged / "d").mkdir()
        (merged / "d/f").write_bytes(bytes(200_000))
        os.sync()
        used = await store.roots.usage(ID)
        assert used.inodes == empty.inodes + 2
        assert 200_000 <= used.bytes - empty.bytes < 220_000
        await store.roots.remove(ID)
        where = await store.roots.fs_usage()
        assert where.mountpoint == str(root)
        assert 0 < where.used_bytes < 64 << 20
        assert 10 < where.inodes_used < 20_000

    run(root, body)


def test_a_writable_layer_that_goes_while_it_is_measured_takes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(store: Store) -> None:
        await store.roots.create(ID, [await store.add(TOP, a="x")])
        await store.roots.unmount(ID)
        quotas: Any = store.roots._driver.quotas
        usage = quotas.usage

        def usage_too_late(place: Path, brought: Usage) -> Usage | None:
            store.roots._put_away(place)
            return cast("Usage | None", usage(place, brought))

        with monkeypatch.context() as patched:
            patched.setattr(quotas, "usage", usage_too_late)
            assert await store.roots.usage(ID) == (0, 0)

    run(root, body)


def test_removal_stops_at_mounts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("sings")

    async def body(store: Store) -> None:
        await store.roots.create(ID, [])
        inside = root / "rootfs" / ID / "diff/deep/mounted"
        inside.mkdir(parents=True)
        mount.bind(tmp_path, inside)
        try:
            await store.roots.remove(ID)
            await store.layers.trash.empty()
            assert (tmp_path / "canary").read_text() == "sings"
        finally:
            for target in mount.below(root):
                mount.unmount(target)

    run(root, body)
    run(root, _emptied)
    assert os.listdir(root / "trash") == []


async def _emptied(store: Store) -> None:
    await store.layers.trash.empty()


def test_closing_does_not_wait_for_the_trash(root: Path) -> None:
    async def fill(store: Store) -> None:
        for number in range(3000):
            (root / "trash/big" / str(number) / "d").mkdir(parents=True)
        store.layers.trash.wake()
        await asyncio.sleep(0)

    run(root, fill)
    run(root, _emptied)
    assert os.listdir(root / "trash") == []


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


def test_full_disk_is_exhausted_and_leaves_nothing(root: Path) -> None:
    async def body(store: Store) -> None:
        fill(root / "filler")
        ids = [f"{number:064x}" for number in range(100)]
        with pytest.raises(Exhausted, match="No space left"):
            await together_in_order(store.roots.create(each, []) for each in ids)
        made = store.roots.ids()
        assert len(mount.below(root)) == len(made) < 100
        for each in made:
            await store.roots.remove(each)
        assert store.roots.ids() == set()

    run(root, body)


async def together_in_order(work: Iterable[Coroutine[object, object, Path]]) -> None:
    for part in work:
        await part


def test_place_that_cannot_hold_a_store_is_told(root: Path) -> None:
    lower, upper, work, merged = (root / name for name in ("l", "u", "w", "m"))
    for path in (lower, upper, work, merged):
        path.mkdir()
    mount.mount("overlay", merged, "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    try:
        with pytest.raises(Unsupported, match=r"ext4, xfs with ftype=1, btrfs or tmpfs"):
            run(merged, _emptied)
    finally:
        mount.unmount(merged)


def test_a_trial_mount_whose_process_was_killed_goes_with_the_next_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(store: Store) -> None:
        pass

    with monkeypatch.context() as killed:  # by what happens then: nothing more
        killed.setattr(Overlay, "_judge", lambda self, place: None)
        killed.setattr("criollo.storage.overlay.mount.unmount", lambda target, detach: False)
        killed.setattr("criollo.storage.overlay.shutil.rmtree", lambda path, ignore_errors: None)
        run(root, nothing)
    assert mount.below(root) != []
    run(root, nothing)
    assert mount.below(root) == []
