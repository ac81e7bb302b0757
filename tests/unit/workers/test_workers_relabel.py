"""Which volumes are never given another label; the labels themselves are a stand-in: this kernel may have no SELinux."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Denied, HostFailed
from criollo.linux import selinux
from criollo.workers.messages import RelabelJob, Relabelled
from criollo.workers.relabel import check_place, relabel

LABEL = "u:object_r:container_file_t:s0:c1,c2"


class Labels:
    """What setxattr would keep, by inode; `order` has the last parts of the names as they came."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[tuple[int, int], str] = {}
        self.order: list[str] = []
        self.has_labels = True
        monkeypatch.setattr(selinux, "label_of", lambda fd: self.of.get(self._key(fd), ""))
        monkeypatch.setattr(selinux, "set_label", self._set)

    def _key(self, fd: int) -> tuple[int, int]:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def _set(self, fd: int, label: str) -> bool:
        self.of[self._key(fd)] = label
        with contextlib.suppress(OSError):  # too deep to have a name
            self.order.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        return self.has_labels

    def __getitem__(self, path: Path) -> str:
        status = os.lstat(path)
        return self.of.get((status.st_dev, status.st_ino), "")

    def __setitem__(self, path: Path, label: str) -> None:
        status = os.lstat(path)
        self.of[status.st_dev, status.st_ino] = label


@pytest.fixture
def labels(monkeypatch: pytest.MonkeyPatch) -> Labels:
    return Labels(monkeypatch)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    top = tmp_path / "volume"
    (top / "a/b/c").mkdir(parents=True)
    for name in ("x", "a/y", "a/b/c/z"):
        (top / name).touch()
    os.mkfifo(top / "a/fifo")
    return top


def run(path: Path, *, skip_if_right: bool = False, progress: Callable[[int], None] = lambda done: None) -> Relabelled:
    return relabel(RelabelJob(path=str(path), label=LABEL, skip_if_right=skip_if_right), progress)


def test_everything_is_labelled_and_the_top_comes_last(volume: Path, labels: Labels) -> None:
    seen: list[int] = []
    assert run(volume, progress=seen.append) == Relabelled(changed=8)
    assert all(labels[path] == LABEL for path in (volume, *volume.rglob("*")))
    assert labels.order[-1] == "volume"
    assert seen == list(range(1, 8))


def test_what_is_right_already_is_left_alone(volume: Path, labels: Labels) -> None:
    run(volume)
    labels[volume / "x"] = "other"
    assert run(volume) == Relabelled(changed=1)


def test_a_top_that_means_the_same_is_enough_where_that_was_asked_for(volume: Path, labels: Labels) -> None:
    labels[volume] = "u:object_r:container_file_t:s0:c2,c1"
    assert run(volume, skip_if_right=True) == Relabelled(changed=0, skipped=True)
    assert run(volume, skip_if_right=False).changed == 8
    labels[volume] = "u:object_r:container_file_t:s0:c1,c3"
    assert run(volume, skip_if_right=True) == Relabelled(changed=1)


def test_links_are_labelled_and_never_followed(volume: Path, tmp_path: Path, labels: Labels) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (volume / "a/out").symlink_to(outside)
    (volume / "file").symlink_to(outside / "secret")
    run(volume)
    assert labels[volume / "a/out"] == LABEL
    assert labels[outside] == labels[outside / "secret"] == ""


def test_a_volume_whose_path_became_a_link_is_refused(volume: Path, tmp_path: Path, labels: Labels) -> None:
    (tmp_path / "way").symlink_to(tmp_path)
    with pytest.raises(HostFailed, match="relabel volume"):
        run(tmp_path / "way/volume")
    assert labels.order == []


def test_a_volume_may_be_a_file(volume: Path, labels: Labels) -> None:
    assert run(volume / "x") == Relabelled(changed=1)
    assert labels[volume] == ""


def test_a_file_system_without_labels_is_no_error(volume: Path, labels: Labels) -> None:
    labels.has_labels = False
    assert run(volume) == Relabelled(changed=0)


def test_a_tree_deeper_than_a_path_can_name_is_labelled_to_its_end(tmp_path: Path, labels: Labels) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(120):
        os.mkdir("d" * 50, dir_fd=fd)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert run(tmp_path).changed == 121


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/etc/passwd",
        "/etc/hosts",
        "/etc/kubernetes/x",
        "/usr",
        "/home",
        "/var/lib",
        "/root",
        "/tmp",
        "/proc/self",
        "/dev/shm",
        "/sys/fs/cgroup",
    ],
)
def test_what_the_node_lives_by_is_refused(path: str) -> None:
    with pytest.raises(Denied, match=f"cannot relabel {path} "):
        check_place(path)


@pytest.mark.parametrize("path", ["/var/lib/kubelet/pods/x", "/home/someone/data", "/mnt", "/processes", "/usrlocal", "/srv/x"])
def test_other_directories_may_be_volumes(path: str) -> None:
    check_place(path)


@given(st.text())
def test_any_path_is_refused_or_not(path: str) -> None:
    try:
        check_place(path)
    except Denied:
        assert path in ("", "/") or path.startswith("/")
