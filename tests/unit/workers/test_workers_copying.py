"""Collecting and placing without a worker, as kpod does it on its own side: round trips, and hostile archives."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import leaks
from support.tars import END, entry, header, pax

from criollo.errors import CriolloError, Damaged, HostFailed
from criollo.workers import live
from criollo.workers.collect import Collector
from criollo.workers.copying import fill
from criollo.workers.ids import Ids
from criollo.workers.landing import Landing, Shape, land
from criollo.workers.place import Keep, Placer
from criollo.workers.tar import Entry, Parser

OWNERS = Keep(owners=os.geteuid() == 0)


@pytest.fixture
def own() -> Iterator[int]:
    fd = live.own_descriptors()
    yield fd
    os.close(fd)


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    before = leaks.descriptors()
    yield
    assert leaks.new_descriptors(before) == []


def place(own: int, directory: Path, archive: bytes, *, keep: Keep = OWNERS, follow: bool = False, step: int = 1000) -> Placer:
    """Unpack an archive into a directory that exists."""
    landing = land(os.fsencode(directory), Shape.ARCHIVE, b"")
    placer = Placer(own, landing, ids=Ids(), keep=keep, follow=follow)
    try:
        fill(placer, (archive[at : at + step] for at in range(0, len(archive), step)))
    finally:
        os.close(landing.top)
    return placer


def collect(own: int, path: Path, name: bytes = b"") -> bytes:
    return b"".join(Collector(own, Ids()).collect(os.fsencode(path), name=name))


def seen(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else os.readlink(path) if path.is_symlink() else b""
        found[str(path.relative_to(top))] = (oct(status.st_mode), status.st_mtime_ns, status.st_nlink, content)
    return found


NAMES = st.text("ab.é\n", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), st.sampled_from("dflh"), st.binary(max_size=2000)), max_size=8),
    st.integers(1, 3000),
)
def test_any_tree_survives_the_way(
    own: int, tmp_path_factory: pytest.TempPathFactory, things: list[tuple[list[str], str, bytes]], step: int
) -> None:
    top = tmp_path_factory.mktemp("tree")
    (top / "from").mkdir()
    (top / "to").mkdir()
    for parts, kind, content in things:
        make(top / "from" / "/".join(parts), kind, content)
    place(own, top / "to", collect(own, top / "from"), step=step)
    assert seen(top / "to") == seen(top / "from")


def make(path: Path, kind: str, content: bytes) -> None:
    """Make something, if it can be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "d":
            path.mkdir()
        elif kind == "l":
            path.symlink_to(content.hex() or "x")
        elif kind == "h":
            os.link(next(each for each in path.parent.iterdir() if each.is_file() and not each.is_symlink()), path)
        elif not path.is_symlink():
            path.write_bytes(content)
    except (OSError, StopIteration):
        pass


@pytest.mark.parametrize(
    "archive",
    [
        entry(b"../x") + END,
        entry(b"a/../../x") + END,
        entry(b"link", b"2", link=b"../canary") + entry(b"link/x", content=b"evil") + END,
        entry(b"link", b"2", link=b"../canary") + entry(b"link/", b"5") + entry(b"link/x") + END,
        entry(b"link", b"2", link=b"../canary") + entry(b"hard", b"1", link=b"link/victim") + END,
        entry(b"hard", b"1", link=b"../canary/victim") + END,
        entry(b"hard", b"1", link=b"nothing") + END,
        entry(b"f") + entry(b"f/x") + END,
        entry(b"d/", b"5") + entry(b"d") + END,
        entry(b"dev", b"3", major=b"9999999\0") + END,
        header(b"f", size=b"00000001000\0") + b"x" * 100,
        b"\1" * 512,
        pax((b"path", b"a\0b")) + entry(b"f") + END,
    ],
)
def test_a_hostile_archive_is_refused_and_touches_nothing_outside(own: int, tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/victim").write_text("same")
    (tmp_path / "to").mkdir()
    before = seen(tmp_path / "canary")
    with pytest.raises(CriolloError):
        place(own, tmp_path / "to", archive)
    assert seen(tmp_path / "canary") == before
    assert sorted(os.listdir(tmp_path)) == ["canary", "to"]


def test_a_link_that_came_is_not_followed_here_but_is_in_a_root_of_its_own(own: int, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/lib").symlink_to("../lib")
    archive = entry(b"lib/", b"5") + entry(b"lib/f", content=b"x") + END
    with pytest.raises(HostFailed, match="a link is in the way"):
        place(own, tmp_path / "to", archive)
    assert os.listdir(tmp_path / "lib") == []
    place(own, tmp_path / "to", archive, follow=True)
    assert (tmp_path / "lib/f").read_text() == "x"


def test_what_is_there_stays_or_gives_way(own: int, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d/kept").touch()
    (tmp_path / "f").write_text("a long text")
    (tmp_path / "l").symlink_to("f")
    archive = entry(b"d/", b"5", mode=b"0000777\0") + entry(b"f", content=b"new") + entry(b"l", content=b"file") + END
    place(own, tmp_path, archive)
    assert oct((tmp_path / "d").stat().st_mode) == "0o40700"
    assert ((tmp_path / "f").read_text(), (tmp_path / "l").read_text()) == ("new", "file")
    assert (tmp_path / "d/kept").exists()


def test_without_rights_no_bit_no_device_no_capability_comes(own: int, tmp_path: Path) -> None:
    xattr = pax((b"SCHILY.xattr.security.capability", b"\1\0\0\2" + bytes(16)), (b"SCHILY.xattr.user.a", b"b"))
    archive = xattr + entry(b"f", mode=b"0006755\0") + entry(b"dev", b"3") + entry(b"pipe", b"6") + END
    placer = place(own, tmp_path, archive, keep=Keep(owners=False, rights=False))
    assert oct((tmp_path / "f").stat().st_mode) == "0o100755"
    assert os.listxattr(tmp_path / "f") == ["user.a"]
    assert placer.skipped == ["dev", "pipe"]
    assert os.listdir(tmp_path) == ["f"]


def test_a_sparse_file_keeps_its_holes(own: int, tmp_path: Path) -> None:
    records = pax((b"GNU.sparse.map", b"4096,3,1048576,2"), (b"GNU.sparse.size", b"2000000"))
    place(own, tmp_path, records + entry(b"f", content=b"abcde") + END)
    content = (tmp_path / "f").read_bytes()
    assert (len(content), content[4096:4099], content[1048576:1048578]) == (2000000, b"abc", b"de")
    assert (tmp_path / "f").stat().st_blocks * 512 < 100_000


def test_one_file_means_one(own: int, tmp_path: Path) -> None:
    for archive in (entry(b"a") + entry(b"b") + END, entry(b"a/", b"5") + END, END):
        landing = Landing(os.open(tmp_path, os.O_PATH), b"name")
        placer = Placer(own, landing, ids=Ids(), keep=OWNERS, follow=False)
        with pytest.raises(Damaged):
            fill(placer, [archive])
        os.close(landing.top)


def test_a_tree_that_changes_is_still_a_whole_tar(own: int, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"x" * 300_000)
    collector = Collector(own, Ids())
    pieces = []
    for piece in collector.collect(os.fsencode(tmp_path), name=b"top"):
        pieces.append(piece)
        if b"top/a/f" in piece:
            (tmp_path / "b/f").unlink()
            (tmp_path / "b").rmdir()
            (tmp_path / "c/f").unlink()
            os.truncate(tmp_path / "a/f", 1000)
    assert collector.changed == ["top/a/f"]
    target = tmp_path / "target"
    target.mkdir()
    place(own, target, b"".join(pieces))
    assert sorted(os.listdir(target / "top")) == ["a", "c"]
    assert (target / "top/a/f").read_bytes() == b"x" * 1000 + bytes(299_000)


def test_a_socket_alone_is_refused_and_in_a_tree_left_out(own: int, tmp_path: Path) -> None:
    os.mknod(tmp_path / "s", stat.S_IFSOCK | 0o600)
    with pytest.raises(HostFailed, match="it is a socket"):
        collect(own, tmp_path / "s", b"s")
    names = [event.name for event in Parser().feed(collect(own, tmp_path)) if isinstance(event, Entry)]
    assert names == [b"./"]


def test_the_kernels_files_are_not_read(own: int) -> None:
    with pytest.raises(HostFailed, match="the kernel's own"):
        collect(own, Path("/proc/version"), b"version")
