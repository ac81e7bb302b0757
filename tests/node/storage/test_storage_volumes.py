"""storage.volumes with a kernel: what is shown of a tree, what a link may reach, and that all of it goes again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.errors import CriolloError, Invalid, NotFound
from criollo.linux import mount
from criollo.storage import volumes

pytestmark = pytest.mark.node


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A volume's place with a tree mounted, and a file beside it that no link may reach."""
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_text("content")
    (source / "inside").symlink_to("/a/b")
    (source / "outside").symlink_to("../../../../secret")
    (source / "chain").symlink_to("inside")
    (source / "loop").symlink_to("loop")
    os.mkfifo(source / "fifo")
    (tmp_path / "secret").write_text("the host's")
    found = tmp_path / "volumes" / "0"
    mount.bind(source, volumes.make(found), readonly=True)
    yield found
    volumes.unmount_all(found.parent)
    assert mount.below(tmp_path) == []


@pytest.mark.parametrize("sub_path", ["a/b", "inside", "chain", "a/../a/b", "../../../a/b"])
def test_a_directory_is_shown_alone_and_read_only(place: Path, sub_path: str) -> None:
    shown = volumes.part(place, sub_path)
    assert os.listdir(shown) == ["file"]
    assert os.listdir(place / "tree") == []
    with pytest.raises(OSError, match="Read-only"):
        (shown / "new").touch()


def test_a_file_is_shown_as_a_file(place: Path) -> None:
    assert volumes.part(place, "inside/file").read_text() == "content"


@pytest.mark.parametrize("sub_path", ["none", "a/b/file/x", "outside"])
def test_what_is_not_in_the_tree_is_not_found(place: Path, sub_path: str) -> None:
    with pytest.raises(NotFound, match="does not exist in the image volume"):
        volumes.part(place, sub_path)


def test_what_cannot_be_mounted_is_told(place: Path) -> None:
    with pytest.raises(Invalid, match="a directory or a regular file"):
        volumes.part(place, "fifo")
    with pytest.raises((OSError, CriolloError)):
        volumes.part(place, "loop")


def test_files_are_shown_each_at_its_place(tmp_path: Path) -> None:
    sources = [tmp_path / name for name in ("one", "two")]
    for source in sources:
        source.write_text(source.name)
    shown = volumes.show_files(tmp_path / "volumes/3", sources)
    assert [path.read_text() for path in shown] == ["one", "two"]
    assert mount.below(tmp_path) == []


def test_files_of_another_file_system_are_mounted(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount.mount("elsewhere", elsewhere, "tmpfs")
    try:
        (elsewhere / "file").write_text("content")
        (shown,) = volumes.show_files(tmp_path / "volumes/3", [elsewhere / "file"])
        assert shown.read_text() == "content"
        with pytest.raises(OSError, match="Read-only"):
            shown.write_text("changed")
        volumes.unmount_all(tmp_path / "volumes")
        assert mount.below(tmp_path / "volumes") == []
    finally:
        mount.unmount(elsewhere, detach=True)


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels that mounts are made with, on a kernel that may have none."""
    seen: list[str] = []
    real = mount.mount

    def mounted(source: str, target: Path, kind: str, flags: int, options: str) -> None:
        plain, _, label = options.partition(",context=")
        seen.append(label)
        real(source, target, kind, flags, plain)

    monkeypatch.setattr(volumes.mount, "mount", mounted)
    return seen


def test_labelled_files_are_seen_through_one_mount(tmp_path: Path, contexts: list[str]) -> None:
    sources = [tmp_path / name for name in ("one", "two")]
    for source in sources:
        source.write_text(source.name)
    place = tmp_path / "volumes,with:marks/3"
    place.parent.mkdir()
    shown = volumes.show_files(place, sources, label="u:r:t:s0:c1,c2")
    try:
        assert contexts == ['"u:r:t:s0:c1,c2"']
        assert [path.read_text() for path in shown] == ["one", "two"]
        assert {path.parent for path in shown} == {place / "tree"}
        with pytest.raises(OSError, match="Read-only"):
            shown[0].write_text("changed")
        assert len(mount.below(tmp_path)) == 1
    finally:
        volumes.unmount_all(place.parent)
    assert mount.below(tmp_path) == []


def test_files_that_cannot_be_linked_keep_their_label(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mount.mount("elsewhere", elsewhere, "tmpfs")
    try:
        (elsewhere / "file").write_text("content")
        (shown,) = volumes.show_files(tmp_path / "volumes/3", [elsewhere / "file"], label="u:r:t:s0")
        assert (shown, shown.read_text()) == (tmp_path / "volumes/3/0", "content")
        volumes.unmount_all(tmp_path / "volumes")
        assert mount.below(tmp_path / "volumes") == []
    finally:
        mount.unmount(elsewhere, detach=True)


def test_unmounting_takes_what_is_in_use_and_what_is_stacked(place: Path, tmp_path: Path) -> None:
    shown = volumes.part(place, "a")
    mount.bind(tmp_path / "source", shown)
    with subprocess.Popen(["sleep", "1000"], cwd=shown) as busy:
        volumes.unmount_all(place.parent)
        assert mount.below(tmp_path) == []
        busy.kill()


def test_nothing_and_half_made_places_are_unmounted_with_success(tmp_path: Path) -> None:
    volumes.unmount_all(tmp_path / "none")
    volumes.make(tmp_path / "volumes/0")
    (tmp_path / "volumes/file").touch()
    volumes.unmount_all(tmp_path / "volumes")
