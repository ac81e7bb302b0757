"""The job `relabel` in a real worker. A kernel without SELinux keeps the attribute as it is, for root."""

import asyncio
import contextlib
import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from criollo.errors import Denied, HostFailed
from criollo.linux import mount
from criollo.linux.selinux import XATTR, is_enabled
from criollo.workers.messages import Relabelled
from criollo.workers.pool import Workers

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(is_enabled(), reason="SELinux takes only labels of its policy: tests/vm has those"),
]

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"
T = TypeVar("T")


def run(body: Callable[[Workers], Awaitable[T]]) -> T:
    async def main() -> T:
        async with Workers() as workers:
            return await body(workers)

    return asyncio.run(main())


def label(path: Path) -> str:
    try:
        return os.getxattr(path, XATTR, follow_symlinks=False).rstrip(b"\0").decode()
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return ""


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume with a mount in it, on a file system that keeps labels."""
    top = tmp_path / "volume"
    top.mkdir()
    mount.mount("tmpfs", top, "tmpfs")
    try:
        (top / "a/b").mkdir(parents=True)
        (top / "a/b/file").touch()
        (top / "a/mounted").mkdir()
        mount.mount("tmpfs", top / "a/mounted", "tmpfs")
        (top / "a/mounted/file").touch()
        yield top
    finally:
        mount.unmount(top / "a/mounted")
        mount.unmount(top)


def test_a_volume_is_labelled_but_for_what_is_mounted_in_it(volume: Path) -> None:
    assert run(lambda workers: workers.relabel(str(volume), LABEL)) == Relabelled(changed=4)
    assert all(label(path) == LABEL for path in (volume, volume / "a", volume / "a/b", volume / "a/b/file"))
    assert label(volume / "a/mounted") == label(volume / "a/mounted/file") == ""
    assert run(lambda workers: workers.relabel(str(volume), LABEL, skip_if_right=True)).skipped


def test_a_directory_that_the_node_lives_by_keeps_its_label() -> None:
    before = label(Path("/etc"))
    with pytest.raises(Denied, match="cannot relabel /etc "):
        run(lambda workers: workers.relabel("/etc", LABEL))
    assert label(Path("/etc")) == before


def test_a_volume_that_cannot_be_written_says_so(volume: Path) -> None:
    mount.mount("none", volume, None, mount.MS_REMOUNT | mount.MS_RDONLY)
    try:
        with pytest.raises(HostFailed, match=f"cannot relabel volume '{volume}'.*Read-only"):
            run(lambda workers: workers.relabel(str(volume), LABEL))
    finally:
        mount.mount("none", volume, None, mount.MS_REMOUNT)


def test_who_swaps_a_directory_for_a_link_meanwhile_reaches_nothing_outside(volume: Path, tmp_path: Path) -> None:
    outside = volume.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (volume / "link").symlink_to(outside)
    (volume / "directory").mkdir()
    (volume / "directory/file").touch()
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                for one, other in (
                    ("directory", "spare"),
                    ("link", "directory"),
                    ("directory", "link"),
                    ("spare", "directory"),
                ):
                    os.rename(volume / one, volume / other)

    async def body(workers: Workers) -> None:
        for number in range(40):
            await workers.relabel(str(volume), f"{LABEL},c{number + 3}")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        run(body)
    finally:
        done.set()
        swapper.join()
    assert label(outside) == label(outside / "file") == ""


def test_a_cancelled_relabel_is_killed_and_leaves_the_top_for_the_next_one(volume: Path) -> None:
    for number in range(20_000):
        (volume / "a/b" / str(number)).touch()

    async def body(workers: Workers) -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(workers.relabel(str(volume), LABEL))
            while not label(volume / "a"):
                await asyncio.sleep(0)
            task.cancel()

    run(body)
    assert label(volume) == ""
