"""The null device goes back to root, whoever has got it."""

import os
import stat
from pathlib import Path

import pytest

from criollo.linux.devices import restore_null

pytestmark = pytest.mark.node


@pytest.fixture
def null(tmp_path: Path) -> Path:
    path = tmp_path / "null"
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    path.chmod(0o666)
    return path


@pytest.mark.parametrize(("owner", "mode"), [((1000, 1000), 0o666), ((0, 5), 0o666), ((0, 0), 0o600), ((7, 8), 0o4777)])
def test_null_device_becomes_roots_again(null: Path, owner: tuple[int, int], mode: int) -> None:
    os.chown(null, *owner)
    null.chmod(mode)
    assert restore_null(str(null))
    status = null.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o666)


def test_what_is_as_it_should_be_or_no_device_stays(null: Path, tmp_path: Path) -> None:
    assert not restore_null(str(null))
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 5, 5)
    (tmp_path / "link").symlink_to(null)
    assert not any(restore_null(str(tmp_path / name)) for name in ("file", "link", "none"))
    assert (tmp_path / "file").stat().st_uid == 5
