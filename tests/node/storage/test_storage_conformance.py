"""What every storage driver promises, on every file system it works on: the same layers give the same tree."""

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.images import Entry, char_device, directory, fifo, file, hardlink, opaque, symlink, whiteout, write_oci_layout
from support.images import make_image as image_of
from support.stores import COMBINATIONS, Shown, Store, attributes, disk, root_on, run, shown

from criollo.aio import threads
from criollo.linux import mount, namespaces
from criollo.linux.namespaces import NamespaceKind
from criollo.model.pod import IdMapping, NamespaceMode, UserNamespace
from criollo.storage.base import Mapped
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

ID, OTHER = "ab" * 32, "cd" * 32
FIRST = 200000
RANGE = (IdMapping(host_id=FIRST, container_id=0, length=65536),)
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service+ep
BLOCK = 4096
DYING = Path(__file__).parents[2] / "support/dying_store.py"


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A driver and a disk."""
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


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapped]:
    """A pinned user namespace."""
    path = tmp_path_factory.mktemp("userns") / "pinned"
    wish = UserNamespace(mode=NamespaceMode.POD, uids=RANGE, gids=RANGE)

    async def make() -> None:
        async with Workers() as workers, workers.userns(wish, {NamespaceKind.USER}) as made:
            await threads.fresh(namespaces.pin, {NamespaceKind.USER}, {NamespaceKind.USER: path}, made=made)

    asyncio.run(make())
    threads.close()
    yield Mapped(path, RANGE, RANGE)
    namespaces.unpin(path)


BOTTOM = [
    directory(".", mode=0o755),
    directory("etc", mode=0o750, uid=3, gid=4),
    file("etc/passwd", "root", mode=0o600, uid=5, gid=6),
    file("etc/gone", "x"),
    directory("var/deep/er"),
    file("var/deep/er/file", "1"),
    directory("hidden"),
    file("hidden/a", "a"),
    directory("hidden/b"),
    file("hidden/b/c", "c"),
    directory("becomes-file"),
    file("becomes-file/inside", "i"),
    file("becomes-directory", "f"),
    directory("becomes-link"),
    symlink("link", "var/deep"),
    symlink("dangling", "/nowhere"),
    file("bin/su", "#!", mode=0o4755),
    file("bin/wall", "#!", mode=0o2755),
    directory("tmp", mode=0o1777),
    char_device("dev/null", 1, 3),
    fifo("run/pipe", mode=0o640),
    file("one", "same"),
    hardlink("two", "one"),
    hardlink("var/three", "one"),
    replace(file("bin/ping", "ping", mode=0o755), xattrs={"user.note": "mine"}),
    replace(directory("noted"), xattrs={"user.note": "directory"}),
    file("name with\nline", "odd"),
    file("stays", "bottom"),
]
MIDDLE = [
    whiteout("etc/gone"),
    opaque("hidden"),
    file("hidden/new", "n"),
    whiteout("becomes-file"),
    file("becomes-file", "now a file"),
    directory("becomes-directory"),
    file("becomes-directory/x", "y"),
    symlink("becomes-link", "etc"),
    directory("var/deep", mode=0o700, uid=9, gid=9),
    file("etc/passwd", "root2", mode=0o644),
    whiteout("two"),
    whiteout("absent"),
]
TOP = [
    directory("etc", mode=0o711),
    file("etc/gone", "back", uid=1),
    whiteout("hidden"),
    directory("hidden"),
    file("hidden/last", "l"),
    file("var/deep/er/another", "2"),
    file("two", "alone"),
    whiteout("tmp"),
]


def test_all_drivers_show_the_tree_that_umoci_unpacks(root: Path, driver: str, tmp_path: Path) -> None:
    image = image_of([BOTTOM, MIDDLE, TOP])
    write_oci_layout(tmp_path / "layout", {"t": image})
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:t", tmp_path / "bundle"], check=True, capture_output=True
    )
    expected = without_implied(shown(tmp_path / "bundle/rootfs", without=["mtime"]))

    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(BOTTOM, MIDDLE, TOP))
        assert without_implied(shown(merged, without=["mtime"])) == expected
        await store.roots.remove(ID)

    run(root, driver, body)


def without_implied(found: Shown) -> Shown:
    """Without directories that no entry describes, and which link of several is named first."""
    return {name: value for name, value in found.items() if name not in ("var", "bin", "dev", "run")}


REFERENCE: dict[str, Shown] = {}


def test_all_drivers_show_the_same_tree_to_the_nanosecond(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(BOTTOM, MIDDLE, TOP))
        found = without_implied(shown(merged))
        assert found == REFERENCE.setdefault("tree", found)
        assert attributes(merged / "bin/ping") == (("user.note", b"mine"),)
        assert attributes(merged / "noted") == (("user.note", b"directory"),)
        await store.roots.remove(ID)

    run(root, driver, body)


def test_read_only_mount_shows_the_same_tree_and_takes_no_write(root: Path, driver: str, tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        names = await store.add(BOTTOM, MIDDLE, TOP)
        merged = await store.roots.create(ID, names)
        place = tmp_path / "shown"
        place.mkdir()
        await store.driver.mount(names, place, None)
        try:
            assert shown(place) == shown(merged)
            with pytest.raises(OSError, match="Read-only"):
                (place / "new").touch()
        finally:
            assert mount.unmount(place)
        await store.roots.remove(ID)

    run(root, driver, body)


def test_writes_stay_with_their_container(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(BOTTOM, MIDDLE)
        one, two = await store.roots.create(ID, names), await store.roots.create(OTHER, names)
        before = shown(two)
        (one / "stays").write_text("changed")
        (one / "etc/passwd").unlink()
        (one / "new").write_text("n")
        os.chown(one / "etc", 77, 77)
        subprocess.run(["rm", "-r", one / "becomes-directory"], check=True)
        (one / "bin/ping").chmod(0o4700)
        os.setxattr(one / "bin/ping", "user.note", b"theirs")
        assert shown(two) == before
        await store.roots.remove(ID)
        again = await store.roots.create(ID, names)
        assert shown(again) == before
        await store.roots.remove(ID)
        await store.roots.remove(OTHER)

    run(root, driver, body)


def test_links_within_a_layer_are_links(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(BOTTOM))
        assert os.path.samefile(merged / "one", merged / "two")
        assert os.path.samefile(merged / "one", merged / "var/three")
        (merged / "one").write_text("written")
        assert (merged / "one").read_text() == "written"
        kept = {(merged / name).read_text() for name in ("two", "var/three")}
        assert kept <= ({"same"} if driver == "overlay" else {"written"})  # copy-up parts them
        await store.roots.remove(ID)

    run(root, driver, body)


def test_capabilities_of_files_and_setuid_survive(root: Path, driver: str) -> None:
    bottom = [
        replace(file("ping", "p", mode=0o755, uid=7), xattrs={"security.capability": CAPABILITY.decode("latin-1")}),
        *BOTTOM,
    ]
    bottom[0] = replace(bottom[0], xattrs={})

    async def body(store: Store) -> None:
        names = await store.add(bottom)
        os.setxattr(store.layers.path(names[0]) / "ping", "security.capability", CAPABILITY)
        merged = await store.roots.create(ID, names)
        assert os.getxattr(merged / "ping", "security.capability") == CAPABILITY
        assert stat.S_IMODE((merged / "bin/su").stat().st_mode) == 0o4755
        assert stat.S_IMODE((merged / "bin/wall").stat().st_mode) == 0o2755
        await store.roots.remove(ID)

    run(root, driver, body)


def test_default_acl_of_a_directory_does_not_spoil_what_is_in_it(root: Path, driver: str) -> None:
    acl = bytes.fromhex("02000000010007 00ffffffff 0400 0000ffffffff 2000 0000ffffffff".replace(" ", ""))

    async def body(store: Store) -> None:
        names = await store.add([directory("shared"), file("shared/f", "x", mode=0o644), directory("shared/d", mode=0o755)])
        os.setxattr(store.layers.path(names[0]) / "shared", "system.posix_acl_default", acl)
        merged = await store.roots.create(ID, names)
        assert os.getxattr(merged / "shared", "system.posix_acl_default") == acl
        assert attributes(merged / "shared/f") == attributes(merged / "shared/d") == ()
        assert stat.S_IMODE((merged / "shared/f").stat().st_mode) == 0o644
        await store.roots.remove(ID)

    run(root, driver, body)


def test_sparse_files_stay_sparse(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add([file("seed")])
        with (store.layers.path(names[0]) / "sparse").open("wb") as out:
            out.write(b"begin")
            out.seek(64 << 20)
            out.write(b"end")
        merged = await store.roots.create(ID, names)
        status = (merged / "sparse").stat()
        assert status.st_size == (64 << 20) + 3
        assert status.st_blocks * 512 < 1 << 20
        with (merged / "sparse").open("rb") as read:
            assert read.read(5) == b"begin"
            read.seek(64 << 20)
            assert read.read() == b"end"
        await store.roots.remove(ID)

    run(root, driver, body)


def test_image_without_layers_is_an_empty_directory(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, [])
        assert os.listdir(merged) == []
        assert stat.S_IMODE(merged.stat().st_mode) == 0o755
        (merged / "new").write_text("n")
        await store.roots.remove(ID)

    run(root, driver, body)


def test_many_layers(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(*([file("number", str(number)), file(f"f{number}", "x")] for number in range(130)))
        merged = await store.roots.create(ID, names)
        assert len(os.listdir(merged)) == 131
        assert (merged / "number").read_text() == "129"
        await store.roots.remove(ID)

    run(root, driver, body)


def test_deep_trees_are_shown_and_removed(root: Path, driver: str) -> None:
    deep = "/".join(["directory"] * 300)

    async def body(store: Store) -> None:
        names = await store.add([file(f"{deep}/f", "x")], [file(f"{deep}/g", "y")], [whiteout(f"{deep}/f")])
        merged = await store.roots.create(ID, names)
        assert os.listdir(merged / deep) == ["g"]
        await store.roots.remove(ID)
        again = await store.roots.create(ID, [*names, *(await store.add([whiteout("directory")]))][-1:])
        assert os.listdir(again) == []
        await store.roots.remove(ID)
        await store.emptied()

    run(root, driver, body)


def test_root_of_a_user_namespace_owns_the_files_of_root(root: Path, driver: str, mapped: Mapped) -> None:
    async def body(store: Store) -> None:
        names = await store.add([*BOTTOM, file("theirs", uid=33, gid=34)])
        plain = await store.roots.create(OTHER, names)
        merged = await store.roots.create(ID, names, mapped=mapped)
        assert owner(merged) == owner(merged / "stays") == (FIRST, FIRST)
        assert owner(merged / "theirs") == (FIRST + 33, FIRST + 34)
        assert owner(plain / "stays") == (0, 0)
        command = "echo more >> stays && echo new > new && chown 7:8 new && mkdir -m 700 own && rm one"
        inside = ["nsenter", f"--user={mapped.user_ns}", "--setuid=0", "--setgid=0", "sh", "-ec", command]
        subprocess.run(inside, cwd=merged, check=True, capture_output=True)
        assert owner(merged / "new") == (FIRST + 7, FIRST + 8)
        assert owner(merged / "own") == (FIRST, FIRST)
        assert (plain / "stays").read_text() == "bottom"
        for container in (ID, OTHER):
            await store.roots.remove(container)

    run(root, driver, body)


def test_volume_of_a_user_namespace_is_mapped_and_read_only(root: Path, driver: str, mapped: Mapped, tmp_path: Path) -> None:
    place = tmp_path / "shown"
    place.mkdir()

    async def body(store: Store) -> None:
        await store.driver.mount(await store.add(BOTTOM), place, None, mapped=mapped)
        try:
            assert owner(place / "stays") == (FIRST, FIRST)
            with pytest.raises(OSError, match="Read-only"):
                (place / "new").touch()
        finally:
            assert mount.unmount(place)

    run(root, driver, body)


def test_usage_is_what_was_written(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add([*BOTTOM, file("large", os.urandom(3 << 20))]))
        os.sync()
        fresh = await store.roots.usage(ID)
        assert fresh.bytes <= 64 * BLOCK
        (merged / "written").write_bytes(os.urandom(5 << 20))
        for number in range(10):
            (merged / f"small{number}").touch()
        os.sync()
        found = await store.roots.usage(ID)
        assert 5 << 20 <= found.bytes - fresh.bytes <= 6 << 20
        assert found.inodes - fresh.inodes == 11
        await store.roots.remove(ID)
        assert await store.roots.usage(ID) == (0, 0)

    run(root, driver, body)


def test_removal_while_in_use_is_complete_when_the_user_lets_go(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        merged = await store.roots.create(ID, await store.add(BOTTOM))
        with (merged / "stays").open() as used:
            await store.roots.remove(ID)
            assert store.roots.ids() == set()
            assert used.read() == "bottom"
        await store.emptied()
        await store.roots.remove(ID)

    run(root, driver, body)


def test_leftover_of_the_same_id_makes_room(root: Path, driver: str) -> None:
    async def body(store: Store) -> None:
        names = await store.add(BOTTOM)
        (await store.roots.create(ID, names) / "left").touch()
        assert not (await store.roots.create(ID, names) / "left").exists()
        await store.roots.remove(ID)

    run(root, driver, body)


@pytest.mark.parametrize("at", [0.0, 0.03, 0.3])
def test_death_while_a_container_is_made_leaves_what_the_next_start_sweeps(root: Path, driver: str, at: float) -> None:
    """The whole process is killed: fork server and workers go with it."""
    names: list[str] = []

    async def prepare(store: Store) -> None:
        names.extend(await store.add(*([file(f"{n}/{m}", os.urandom(5000)) for m in range(100)] for n in range(8))))

    run(root, driver, prepare)
    died = subprocess.run([sys.executable, DYING, root, driver, str(at), *names], check=False, capture_output=True)
    assert died.returncode == -9, died.stderr

    async def after(store: Store) -> None:
        for left in store.roots.ids():
            await store.roots.remove(left)
        await store.emptied()
        assert [name for name in os.listdir(root / "trees") if name.startswith(".")] == [] if driver != "overlay" else True
        merged = await store.roots.create(OTHER, names)
        assert len(shown(merged)) == 809
        await store.roots.remove(OTHER)
        await store.emptied()

    run(root, driver, after)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def test_entries_of_the_image_are_as_expected() -> None:
    """The reference itself: what no other test says by name."""
    assert all(isinstance(each, Entry) for each in (*BOTTOM, *MIDDLE, *TOP))
