"""storage.projects without a file system that has quotas: which numbers are handed out."""

import errno
import os
from pathlib import Path

import pytest

from criollo.errors import Exhausted, Unsupported
from criollo.linux import quota
from criollo.linux.quota import Counted
from criollo.storage import projects
from criollo.storage.base import Limit, Usage
from criollo.storage.projects import FIRST, Projects


class Kernel:
    """Projects by inode; what they have."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.projects: dict[int, int] = {}
        self.counted: dict[int, Counted] = {}
        self.enforced = True
        monkeypatch.setattr(quota, "is_enforced", lambda fd: self.enforced)
        monkeypatch.setattr(quota, "project_of", lambda fd: self.projects.get(_inode(fd), 0))
        monkeypatch.setattr(quota, "set_project", lambda fd, project: self.projects.update({_inode(fd): project}))
        monkeypatch.setattr(quota, "counted", lambda fd, project: self.counted.get(project, Counted(0, 0, 0, 0)))
        monkeypatch.setattr(quota, "set_limits", self._set_limits)

    def _set_limits(self, fd: int, project: int, *, limit_bytes: int, limit_inodes: int) -> None:
        found = self.counted.get(project, Counted(0, 0, 0, 0))
        self.counted[project] = found._replace(limit_bytes=limit_bytes, limit_inodes=limit_inodes)

    def of(self, place: Path) -> int:
        return self.projects.get(place.stat().st_ino, 0)


def _inode(fd: int) -> int:
    return os.fstat(fd).st_ino


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def opened(directory: Path) -> Projects:
    found = Projects()
    found.open(directory)
    return found


def place(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


def test_each_place_gets_a_number_of_its_own(kernel: Kernel, tmp_path: Path) -> None:
    store = opened(tmp_path)
    for name in "abc":
        store.begin(place(tmp_path, name))
    assert [kernel.of(tmp_path / name) for name in "abc"] == [FIRST, FIRST + 1, FIRST + 2]


def test_numbers_on_the_disk_are_taken(kernel: Kernel, tmp_path: Path) -> None:
    opened(tmp_path).begin(place(tmp_path, "a"))
    opened(tmp_path).begin(place(tmp_path, "b"))
    assert [kernel.of(tmp_path / name) for name in "ab"] == [FIRST, FIRST + 1]


def test_numbers_that_somebody_has_files_under_are_passed_over(kernel: Kernel, tmp_path: Path) -> None:
    kernel.counted = {FIRST: Counted(4096, 0, 0, 0), FIRST + 1: Counted(0, 1, 0, 0)}
    opened(tmp_path).begin(place(tmp_path, "a"))
    assert kernel.of(tmp_path / "a") == FIRST + 2


def test_numbers_come_round_and_end(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projects, "COUNT", 2)
    store = opened(tmp_path)
    store.begin(place(tmp_path, "a"))
    store.begin(place(tmp_path, "b"))
    with pytest.raises(Exhausted, match="all 2 project numbers"):
        store.begin(place(tmp_path, "c"))
    store.release(tmp_path / "a")
    store.begin(tmp_path / "c")
    assert kernel.of(tmp_path / "c") == FIRST


def test_what_is_there_when_the_limit_is_set_does_not_count(kernel: Kernel, tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.begin(place(tmp_path, "a"))
    kernel.counted[FIRST] = Counted(1000, 5, 0, 0)
    brought = store.bound(tmp_path / "a", Limit(8000, 0), Usage(900, 4))
    assert brought == (1000, 5)
    assert kernel.counted[FIRST] == (1000, 5, 9000, 0)
    kernel.counted[FIRST] = Counted(3000, 8, 9000, 0)
    assert store.usage(tmp_path / "a", brought) == Usage(2000, 3)
    kernel.counted[FIRST] = Counted(500, 2, 9000, 0)  # files of the image were removed
    assert store.usage(tmp_path / "a", brought) == Usage(0, 0)


def test_places_without_a_number_of_ours_are_not_counted(kernel: Kernel, tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.usage(place(tmp_path, "a"), Usage(0, 0)) is None
    kernel.projects[(tmp_path / "a").stat().st_ino] = 7  # of the directory above, set by an administrator
    assert store.usage(tmp_path / "a", Usage(0, 0)) is None
    store.release(tmp_path / "a")
    assert kernel.counted == {}


def test_release_takes_limits_away_and_absence_is_success(kernel: Kernel, tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.begin(place(tmp_path, "a"))
    store.bound(tmp_path / "a", Limit(8000, 9), Usage(0, 0))
    store.release(tmp_path / "a")
    assert kernel.counted[FIRST] == (0, 0, 0, 0)
    store.release(tmp_path / "absent")


def test_file_system_that_bounds_nothing_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    kernel.enforced = False
    with pytest.raises(Unsupported, match="enforces no project quotas"):
        opened(tmp_path).begin(place(tmp_path, "a"))


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ESRCH, errno.EINVAL])
def test_kernels_without_quotas_bound_nothing(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(quota, "_quotactl", refuse)
    assert not quota.is_enforced(0)
    assert quota.counted(0, 5) is None
