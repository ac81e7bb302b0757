"""workers.copy: files of a tree whose owner is hostile, through a confined process."""

import asyncio
import contextlib
import ctypes
import errno
import io
import os
import tarfile  # noqa: TID251  # what ours is compared with
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.tars import END, entry

from criollo.aio import threads
from criollo.errors import CriolloError, HostFailed
from criollo.linux import libc, mount
from criollo.workers import live
from criollo.workers.collect import Collector
from criollo.workers.ids import Ids
from criollo.workers.messages import CollectJob, Copied, PlaceJob
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

RENAME_EXCHANGE = 2  # linux/fs.h


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    threads.close()
    descriptors = leaks.descriptors()
    yield
    threads.close()
    assert leaks.new_descriptors(descriptors) == []
    assert leaks.fork_servers() == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a container; beside it is what it must not reach."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/secret").write_text("of the host")
    (tmp_path / "root/tmp").mkdir(parents=True)
    return tmp_path / "root"


def read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


async def collect(workers: Workers, root: Path, job: CollectJob) -> bytes:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        async with workers.copy(fd, job) as transfer:
            content = await threads.transfers(read_all, transfer.pipe_fd)
            await transfer.result()
            return content
    finally:
        os.close(fd)


async def place(workers: Workers, root: Path, job: PlaceJob, archive: bytes) -> Copied:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        async with workers.copy(fd, job) as transfer:
            await threads.transfers(write_all, transfer.pipe_fd, archive)
            return await transfer.result()
    finally:
        os.close(fd)


def out(root: Path, path: str, *, follow: bool = False) -> bytes:
    async def once() -> bytes:
        async with Workers() as workers:
            return await collect(workers, root, CollectJob(path=path, name="x", follow=follow))

    return asyncio.run(once())


def into(root: Path, path: str, archive: bytes, *, shape: str = "archive", ids: Ids | None = None) -> Copied:
    async def once() -> Copied:
        async with Workers() as workers:
            return await place(workers, root, PlaceJob(path=path, shape=shape, base="x", ids=ids or Ids()), archive)

    return asyncio.run(once())


def members(archive: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return found.getmembers()


@contextlib.contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Two names change places as fast as can be, while the block runs."""
    libc = ctypes.CDLL(None)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE)

    racer = threading.Thread(target=swap)
    racer.start()
    try:
        yield
    finally:
        stop.set()
        racer.join()


@pytest.mark.parametrize("target", ["../../../../../../../CANARY", "CANARY", "/proc/self/root/CANARY", "/proc/1/root/CANARY"])
def test_links_end_at_the_root(root: Path, target: str) -> None:
    (root / "link").symlink_to(target.replace("CANARY", f"{root.parent}/canary"))
    for path in ("/link/", "/link/secret", "/link/.", "/../canary/secret"):
        with pytest.raises(HostFailed):
            out(root, path, follow=True)
    for path in ("/link/new", "/link/secret"):
        with pytest.raises(HostFailed):
            into(root, path, entry(b"f", content=b"evil") + END, shape="file")
    assert (root.parent / "canary/secret").read_text() == "of the host"
    assert os.listdir(root.parent / "canary") == ["secret"]


def test_a_directory_that_becomes_a_link_while_it_is_read_leads_nowhere(root: Path) -> None:
    for number in range(30):
        (root / f"tree/{number}/below").mkdir(parents=True)
        (root / f"tree/{number}/below/secret").write_text("of the container")
    (root / "tmp/link").symlink_to(root.parent / "canary")
    (root / "tmp/up").symlink_to("../../canary")

    async def many() -> list[bytes]:
        async with Workers() as workers:
            return [await collect(workers, root, CollectJob(path="/tree", name="x")) for _ in range(30)]

    with swapping(root / "tree/10/below", root / "tmp/link"), swapping(root / "tree/20/below", root / "tmp/up"):
        found = asyncio.run(many())
    for each in found:
        assert b"of the host" not in each
        assert members(each)


def test_a_directory_that_is_moved_out_of_the_tree_while_it_is_entered_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("away", "here"):
        (root / "tree" / name).mkdir(parents=True)
    opened = libc.openat2

    def moved(directory: int, path: bytes, flags: int, *, resolve: int) -> int:
        if path == b"away":  # the kernel's answer when a rename is faster than its last look
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return opened(directory, path, flags, resolve=resolve)

    monkeypatch.setattr(libc, "openat2", moved)
    own = live.own_descriptors()
    try:
        archive = b"".join(Collector(own, Ids()).collect(os.fsencode(root / "tree"), name=b"x"))
    finally:
        os.close(own)
    assert [each.name for each in members(archive)] == ["x", "x/here"]


def test_a_directory_that_becomes_a_link_while_it_is_written_leads_nowhere(root: Path) -> None:
    archive = b"".join(entry(b"below/f%d" % number, content=b"evil") for number in range(200)) + END
    (root / "dst/below").mkdir(parents=True)
    (root / "tmp/link").symlink_to(root.parent / "canary")

    async def many() -> None:
        async with Workers() as workers:
            for _ in range(30):
                with contextlib.suppress(CriolloError):
                    await place(workers, root, PlaceJob(path="/dst", shape="archive"), archive)

    with swapping(root / "dst/below", root / "tmp/link"):
        asyncio.run(many())
    assert os.listdir(root.parent / "canary") == ["secret"]


def test_what_would_wait_or_act_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "tmp/fifo")
    os.mknod(root / "tmp/device", 0o600 | 0o060000, os.makedev(7, 250))
    found = sorted((each.name, each.type) for each in members(out(root, "/tmp")))
    assert found == [("x", b"5"), ("x/device", b"4"), ("x/fifo", b"6")]
    with pytest.raises(HostFailed, match="Not a directory"):
        into(root, "/tmp/fifo/x", entry(b"f") + END, shape="file")


def test_a_copy_that_nobody_waits_for_ends(root: Path) -> None:
    with open(root / "huge", "wb") as file:
        file.truncate(1 << 40)

    async def cut() -> None:
        async with Workers() as workers:
            fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
            async with workers.copy(fd, CollectJob(path="/huge", name="x")) as transfer:
                assert os.read(transfer.pipe_fd, 512)
            os.close(fd)

    asyncio.run(cut())


def test_owners_are_those_of_the_user_namespace(root: Path) -> None:
    ids = Ids(uids=((0, 100_000, 65536),), gids=((0, 200_000, 65536),))
    header = dict(uid=b"0000005\0", gid=b"0000006\0")
    into(root, "/tmp", entry(b"d/", b"5", **header) + entry(b"d/f", content=b"x", **header) + END, ids=ids)
    found = [((root / "tmp" / name).stat().st_uid, (root / "tmp" / name).stat().st_gid) for name in ("d", "d/f")]
    assert found == [(100_005, 200_006)] * 2

    async def back() -> bytes:
        async with Workers() as workers:
            return await collect(workers, root, CollectJob(path="/tmp/d", name="x", ids=ids))

    assert [(each.uid, each.gid) for each in members(asyncio.run(back()))] == [(5, 6)] * 2


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "small")
    mount.mount("small", tmp_path / "small", "tmpfs", 0, "size=1m")
    try:
        with pytest.raises(CriolloError, match="the disk is full"):
            into(tmp_path / "small", "/", entry(b"f", content=b"x" * (3 << 20)) + END)
    finally:
        mount.unmount(tmp_path / "small")
