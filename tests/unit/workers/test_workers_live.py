import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import HostFailed
from criollo.workers import live


@given(st.lists(st.sampled_from([b"a", b"b", b".", b"..", b"/", b"//"]), max_size=8).map(b"".join))
def test_a_path_is_split_so_that_the_parts_mean_the_same(path: bytes) -> None:
    parent, base = live.split(path)
    assert b"/" not in base
    assert base not in (b".", b"..")
    assert plain(os.path.join(parent, base)) == plain(path or b".")


def plain(path: bytes) -> bytes:
    """A normal form, also of two slashes at the beginning, which POSIX would keep."""
    return os.path.normpath(path).replace(b"//", b"/")


def test_what_was_looked_at_is_what_is_opened(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("looked at")
    own, directory = live.own_descriptors(), live.directory(os.fsencode(tmp_path))
    looked = live.look(directory, b"f")
    (tmp_path / "f").rename(tmp_path / "moved")
    (tmp_path / "f").write_text("put in its place")
    fd = live.again(own, looked, os.O_RDONLY)
    assert os.read(fd, 100) == b"looked at"
    for each in (fd, looked, directory, own):
        os.close(each)


def test_a_look_at_a_fifo_does_not_wait_and_a_link_is_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    directory = live.directory(os.fsencode(tmp_path))
    for name, link in ((b"fifo", None), (b"link", b"fifo")):
        fd = live.look(directory, name)
        assert link is None or os.readlink(b"", dir_fd=fd) == link
        os.close(fd)
    os.close(directory)


def test_magic_links_lead_nowhere() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        live.anything(b"/proc/self/root/etc")


def test_files_of_the_kernel_are_known() -> None:
    for path in (b"/proc/version", b"/sys", b"/proc"):
        fd = live.anything(path)
        with pytest.raises(HostFailed, match="the kernel's own"):
            live.refuse_kernels(fd, path)
        os.close(fd)


def test_a_mount_point_is_known_and_absence_is_none(tmp_path: Path) -> None:
    root, here = live.directory(b"/"), live.directory(os.fsencode(tmp_path))
    assert live.is_mount_point(root, b"proc")
    assert not live.is_mount_point(here, b"nothing")
    for each in (root, here):
        os.close(each)
