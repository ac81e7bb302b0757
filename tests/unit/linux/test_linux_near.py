"""Whether a look at a path can hang."""

import os
from pathlib import Path

import pytest

from criollo.linux import mount, near
from criollo.linux.near import is_near, open_near


@pytest.mark.parametrize(
    "path", ["/", "/etc/passwd", "/dev/null", "/proc/self/status", "/no/such/thing", "/dev/no/such", "/etc/../etc"]
)
def test_what_is_on_the_nodes_own_file_systems_answers(path: str) -> None:
    assert is_near(path)


def test_a_link_that_stays_on_its_mount_answers(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".")
    assert is_near(f"{tmp_path}/link/x")


def test_a_link_to_another_mount_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")
    assert not is_near(f"{tmp_path}/link/status")


def test_a_mount_of_an_unknown_kind_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = mount.mounts()
    changed = [each._replace(fstype="nfs4") if each.target == "/proc" else each for each in entries]
    monkeypatch.setattr(mount, "mounts", lambda: changed)
    assert not is_near("/proc/self/status")
    assert is_near("/processes")


def test_a_path_is_opened_on_the_mount_of_its_anchor_only() -> None:
    fd = open_near("/dev", "null")
    assert fd is not None
    assert os.readlink(f"/proc/self/fd/{fd}") == "/dev/null"
    os.close(fd)
    assert open_near("/", "proc/self") is None
    with pytest.raises(FileNotFoundError):
        open_near("/dev", "no/such")


def test_kinds_that_may_hang_are_not_among_those_that_answer() -> None:
    assert near._ANSWERING.isdisjoint({"fuse", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "autofs"})
