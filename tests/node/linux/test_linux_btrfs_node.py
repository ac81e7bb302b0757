"""linux.btrfs with a kernel: subvolumes, snapshots, quota groups."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.stores import disk

from criollo.linux import btrfs

pytestmark = pytest.mark.node


@pytest.fixture
def place() -> Iterator[Path]:
    with disk("btrfs") as found:
        yield found


@pytest.fixture
def top(place: Path) -> Iterator[int]:
    fd = os.open(place, os.O_RDONLY)
    yield fd
    os.close(fd)


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def test_snapshot_has_what_the_subvolume_had_and_goes_its_own_way(place: Path, top: int) -> None:
    btrfs.create(top, "one")
    (place / "one/file").write_text("1")
    one = opened(place / "one")
    assert btrfs.is_subvolume(one)
    btrfs.snapshot(one, top, "two")
    (place / "two/file").write_text("2")
    assert (place / "one/file").read_text() == "1"
    os.close(one)
    btrfs.destroy(top, "one")
    btrfs.destroy(top, "two")
    assert os.listdir(place) == []


def test_plain_directories_and_other_file_systems_are_told_apart(place: Path, tmp_path: Path) -> None:
    (place / "plain").mkdir()
    for path, expected in ((place / "plain", True), (tmp_path, False)):
        fd = opened(path)
        assert btrfs.is_btrfs(fd) is expected
        assert not btrfs.is_subvolume(fd)
        os.close(fd)


def test_read_only_is_set_and_taken_back(place: Path, top: int) -> None:
    btrfs.create(top, "one")
    one = opened(place / "one")
    for _ in range(2):
        btrfs.set_read_only(one, True)
    with pytest.raises(OSError, match="Read-only"):
        (place / "one/file").touch()
    btrfs.set_read_only(one, False)
    (place / "one/file").touch()
    os.close(one)


def test_limit_bounds_what_is_not_shared(place: Path, top: int) -> None:
    btrfs.create(top, "one")
    (place / "one/shared").write_bytes(os.urandom(12 << 20))
    one = opened(place / "one")
    assert btrfs.group_of(one) is None
    with pytest.raises(OSError, match=r"not connected|Invalid argument"):
        btrfs.limit_exclusive(one, 1)
    btrfs.enable_quotas(top)
    btrfs.enable_quotas(top)
    btrfs.snapshot(one, top, "two")
    two = opened(place / "two")
    btrfs.limit_exclusive(two, 8 << 20)
    with pytest.raises(OSError, match="quota exceeded"):
        (place / "two/own").write_bytes(os.urandom(20 << 20))
    os.sync()
    found = btrfs.group_of(two)
    assert found is not None
    assert found.limit_bytes == 8 << 20
    assert 6 << 20 <= found.exclusive_bytes <= 8 << 20
    btrfs.limit_exclusive(two, 0)
    (place / "two/more").write_bytes(os.urandom(10 << 20))
    found = btrfs.group_of(two)
    assert found is not None
    assert found.limit_bytes == 0
    os.close(one)
    os.close(two)


def test_subvolume_with_another_inside_is_not_destroyed(place: Path, top: int) -> None:
    btrfs.create(top, "one")
    one = opened(place / "one")
    btrfs.create(one, "inner")
    with pytest.raises(OSError, match="not empty"):
        btrfs.destroy(top, "one")
    btrfs.destroy(one, "inner")
    os.close(one)
    btrfs.destroy(top, "one")
