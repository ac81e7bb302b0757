"""linux.tree: removal at any depth and width, counting like du, nothing outside touched."""

import os
import subprocess
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.linux import tree


def remove(top: Path, name: str) -> list[str]:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tree.remove(fd, name, fd)
    finally:
        os.close(fd)


def usage(top: Path) -> tree.TreeUsage:
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tree.usage(fd)
    finally:
        os.close(fd)


def deep(top: Path, levels: int) -> None:
    """Directories far deeper than one path can name."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("n" * 100, dir_fd=here)
        below = os.open("n" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def test_absence_is_success(tmp_path: Path) -> None:
    assert remove(tmp_path, "gone") == []


def test_files_and_links_are_removed_as_themselves(tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/f").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link").symlink_to(tmp_path / "canary")
    (tmp_path / "l").symlink_to("canary")
    assert remove(tmp_path, "d") == remove(tmp_path, "l") == []
    assert os.listdir(tmp_path) == ["canary"]
    assert os.listdir(tmp_path / "canary") == ["f"]


def test_a_hundred_thousand_bytes_deep(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    deep(tmp_path / "d", 1000)
    found = usage(tmp_path / "d")
    assert found.inodes == 1002
    assert remove(tmp_path, "d") == []
    assert os.listdir(tmp_path) == []


def test_wide(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "d" / str(number) / "x").mkdir(parents=True)
    assert remove(tmp_path, "d") == []
    assert os.listdir(tmp_path) == []


def test_scratch_names_in_use_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".removing-1").mkdir()
    (tmp_path / ".removing-1/mine").touch()
    (tmp_path / "d/a/b").mkdir(parents=True)
    assert remove(tmp_path, "d") == []
    assert os.listdir(tmp_path / ".removing-1") == ["mine"]


def test_stopping_leaves_the_rest(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / "d" / str(number) / "x").mkdir(parents=True)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    fd = os.open(tmp_path, os.O_RDONLY)
    tree.remove(fd, "d", fd, should_stop=stop)
    os.close(fd)
    left = os.listdir(tmp_path)
    assert left
    assert all(remove(tmp_path, name) == [] for name in left)
    assert os.listdir(tmp_path) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.integers(0, 20000)), max_size=10))
def test_usage_is_that_of_du(tmp_path: Path, files: list[tuple[list[str], int]]) -> None:
    top = tmp_path / "top"
    top.mkdir()
    for parts, size in files:
        path = top.joinpath(*(f"d{part}" for part in parts[:-1]), parts[-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        linked = path.with_name("linked")
        if not linked.exists():
            linked.hardlink_to(path)
    found = usage(top)
    blocks = int(subprocess.run(["du", "-s", "-B512", top], capture_output=True, check=True).stdout.split()[0])
    inodes = int(subprocess.run(["du", "-s", "--inodes", top], capture_output=True, check=True).stdout.split()[0])
    assert found == (blocks * 512, inodes)
    assert remove(tmp_path, "top") == []
