"""storage.trees with the drivers that use it: made once, made again, dropped, cut off."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.images import directory, file, hardlink, symlink, whiteout
from support.stores import Store, disk, root_on, run, shown
from support.waiting import cancelled_within

from criollo.aio import threads
from criollo.errors import CriolloError, Exhausted, Unavailable, Unsupported
from criollo.linux import btrfs, mount
from criollo.storage.trees import Trees
from criollo.workers.messages import AssembleJob
from criollo.workers.running import Running

pytestmark = pytest.mark.node

ID, OTHER = "ab" * 32, "cd" * 32
LAYERS = [[file("a", "bottom"), file("b", "b"), hardlink("c", "b")], [file("a", "top"), whiteout("c")]]


@pytest.fixture(scope="module", params=[("vfs", "ext4"), ("btrfs", "btrfs")], ids="-".join)
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


def test_containers_that_come_at_once_share_one_tree(root: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[AssembleJob] = []

    async def body(store: Store) -> None:
        names = await store.add(*LAYERS)
        real = store.workers.assemble

        async def count(source: int, target: int, job: AssembleJob, *, stall_s: float) -> object:
            jobs.append(job)
            return await real(source, target, job, stall_s=stall_s)

        monkeypatch.setattr(store.workers, "assemble", count)
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(store.roots.create(f"{number}" * 64, names))
        assert [job.names for job in jobs].count(tuple(names)) == 1
        assert [name for name in os.listdir(root / "trees") if name == names[-1]] == [names[-1]]
        for number in range(5):
            assert (store.roots.path(f"{number}" * 64) / "a").read_text() == "top"
            await store.roots.remove(f"{number}" * 64)

    run(root, driver, body)


def test_tree_is_kept_over_a_restart_and_dropped_with_a_layer(root: Path, driver: str) -> None:
    names: list[str] = []

    async def first(store: Store) -> None:
        names.extend(await store.add(*LAYERS))
        await store.roots.create(ID, names)
        await store.roots.remove(ID)

    async def second(store: Store) -> None:
        inode = (root / "trees" / names[-1] / "facts").stat().st_ino
        await store.roots.create(ID, names)
        assert (root / "trees" / names[-1] / "facts").stat().st_ino == inode
        await store.roots.remove(ID)
        await store.layers.remove(names[0])
        assert os.listdir(root / "trees") == []
        await store.emptied()

    run(root, driver, first)
    run(root, driver, second)


def test_tree_of_layers_that_are_gone_is_swept_at_start(root: Path, driver: str) -> None:
    names: list[str] = []

    async def first(store: Store) -> None:
        names.extend(await store.add(*LAYERS))
        await store.roots.create(ID, names)
        await store.roots.remove(ID)

    async def second(store: Store) -> None:
        assert os.listdir(root / "trees") == []
        await store.emptied()

    run(root, driver, first)
    (root / "layers" / names[0]).rename(root / "layers" / ("f" * 32))
    run(root, driver, second)


@pytest.mark.parametrize("damage", ["absent", "garbage", "others"])
def test_damaged_tree_is_made_again(root: Path, driver: str, damage: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(*LAYERS)
        await store.roots.create(ID, names)
        facts = root / "trees" / names[-1] / "facts"
        if damage == "absent":
            facts.unlink()
        else:
            facts.write_text("{" if damage == "garbage" else '{"layers":["x"],"used_bytes":0,"inodes":0}')
        assert (await store.roots.create(OTHER, names) / "a").read_text() == "top"
        assert (store.roots.path(ID) / "a").read_text() == "top"
        for container in (ID, OTHER):
            await store.roots.remove(container)
        await store.emptied()

    run(root, driver, body)


def test_who_leaves_while_a_directory_is_opened_leaves_no_descriptor(
    root: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(store: Store) -> None:
        (root / "copy").mkdir()
        (root / "trees/x/tree").mkdir(parents=True)
        trees = Trees(store.layers, store.workers, root, link=False)
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, os, "open", trees.copy(root / "trees/x/tree", root / "copy"))
        assert leaks.new_descriptors(before) == []

    run(root, driver, body)


def test_cancelled_create_leaves_nothing(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add([file(f"f{n}", os.urandom(2000)) for n in range(3000)])
        for steps in (1, 5, 20, 60):
            making = asyncio.get_running_loop().create_task(store.roots.create(ID, names))
            for _ in range(steps):
                await asyncio.sleep(0.002)
            making.cancel()
            await asyncio.wait([making])
            if not making.cancelled():
                await store.roots.remove(ID)
            assert store.roots.ids() == set()
            assert all(not name.startswith(".") for name in os.listdir(root / "trees"))
        await store.emptied()
        assert len(os.listdir(await store.roots.create(ID, names))) == 3000
        await store.roots.remove(ID)

    run(root, driver, body)


def test_killed_worker_is_told_and_the_next_try_works(root: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(store: Store) -> None:
        names = await store.add(*LAYERS)
        with monkeypatch.context() as patch:
            real = Running.outcome

            async def kill(running: Running) -> object:
                running.kill()
                return await real(running)

            patch.setattr(Running, "outcome", kill)
            with pytest.raises(Unavailable, match="the worker was killed"):
                await store.roots.create(ID, names)
        assert store.roots.ids() == set()
        assert (await store.roots.create(ID, names) / "a").read_text() == "top"
        await store.roots.remove(ID)

    run(root, driver, body)


def test_layers_stay_as_they_are_whatever_a_container_does(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(*LAYERS)
        before = [shown(store.layers.path(name)) for name in names]
        merged = await store.roots.create(ID, names)
        for name in ("a", "b"):
            (merged / name).write_text("changed")
            (merged / name).chmod(0o777)
            os.chown(merged / name, 1, 2)
            os.setxattr(merged / name, "user.x", b"y")
        await store.roots.remove(ID)
        assert [shown(store.layers.path(name)) for name in names] == before

    run(root, driver, body)


def test_links_of_a_layer_lead_nowhere_else_while_layers_are_put_together(root: Path, driver: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").touch()

    async def body(store: Store) -> None:
        lower = [symlink("d", str(tmp_path / "outside")), symlink("e", "../../../.."), directory("f"), file("f/x", "1")]
        upper = [directory("d"), file("d/new", "n"), whiteout("e"), file("e", "plain")]
        names = await store.add(lower, upper, [symlink("f", str(tmp_path / "outside"))])
        merged = await store.roots.create(ID, names)
        assert os.listdir(tmp_path / "outside") == ["kept"]
        assert os.listdir(merged / "d") == ["new"]
        assert os.readlink(merged / "f") == str(tmp_path / "outside")
        await store.roots.remove(ID)

    run(root, driver, body)


def test_layers_may_be_on_another_disk(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(*LAYERS)
        merged = await store.roots.create(ID, names)
        assert (merged / "a").read_text() == "top"
        assert sorted(os.listdir(merged)) == ["a", "b"]
        await store.roots.remove(ID)
        await store.layers.remove(names[0])
        assert os.listdir(root / "trees") == []
        await store.emptied()

    with disk("ext4") as place:
        run(root, driver, body, images=place / "images")
        threads.close()


def test_missing_layer_is_told(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        with pytest.raises(CriolloError, match="open layer " + "e" * 32):
            await store.roots.create(ID, ["e" * 32])
        assert store.roots.ids() == set()

    run(root, driver, body)


def test_full_disk_is_told_and_leaves_nothing(root: Path, driver: str) -> None:
    if driver == "btrfs":
        pytest.skip("a snapshot takes next to no room")

    async def body(store: Store) -> None:
        names = await store.add([file("large", os.urandom(8 << 20)), *(file(f"small{n}", "x" * 5000) for n in range(500))])
        filler = root / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(os.urandom(1 << 20))
        try:
            with pytest.raises(Exhausted, match="free space or inodes"):
                await store.roots.create(ID, names)
            assert store.roots.ids() == set()
            await store.emptied()
        finally:
            filler.unlink()
        assert (await store.roots.create(ID, names) / "large").stat().st_size == 8 << 20
        await store.roots.remove(ID)

    run(root, driver, body)


def test_another_driver_takes_a_store_over_that_has_no_writable_layers(root: Path, driver: str) -> None:
    async def begin(store: Store) -> None:
        names = await store.add(*LAYERS)
        await store.roots.create(ID, names)

    async def go_on(store: Store) -> None:
        names = await store.add(*LAYERS)
        assert (await store.roots.create(OTHER, names) / "a").read_text() == "top"
        await store.roots.remove(OTHER)
        await store.emptied()
        assert not os.path.isdir(root / "trees") or os.listdir(root / "trees") == []

    async def remove(store: Store) -> None:
        await store.roots.remove(ID)
        await store.emptied()

    run(root, driver, begin)
    with pytest.raises(Unsupported, match=f"cannot use storage driver overlay in .* has 1 writable layers of driver {driver}"):
        run(root, "overlay", go_on)
    run(root, driver, remove)
    run(root, "overlay", go_on)
    assert (root / "driver").read_text() == "overlay\n"


def test_nested_subvolumes_of_a_container_go_with_it(root: Path, driver: str) -> None:
    if driver != "btrfs":
        pytest.skip("there are none")

    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(*LAYERS))
        (merged / "below").mkdir()
        for path in ("one", "below/two", "below/two/three"):
            make_subvolume(merged / path)
            (merged / path / "file").write_text("x")
        fd = os.open(merged / "below/two/three", os.O_RDONLY)
        btrfs.set_read_only(fd, True)
        os.close(fd)
        await store.roots.remove(ID)
        await store.emptied()

    run(root, driver, body)


def make_subvolume(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        btrfs.create(fd, path.name)
    finally:
        os.close(fd)


def test_btrfs_driver_wants_btrfs() -> None:
    async def nothing(store: Store) -> None:
        pass

    with disk("ext4") as place, root_on(place) as root:
        with pytest.raises(Unsupported, match="with the btrfs driver: it is on ext4; set storage_driver to overlay"):
            run(root, "btrfs", nothing)
        threads.close()
        assert mount.below(root) == []
