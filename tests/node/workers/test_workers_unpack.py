"""workers.unpack through the pool, with a kernel: what entries become, and that nothing leaves the layer."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile  # noqa: TID251  # what ours is compared with
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import leaks
from support.tars import END, entry, header, pax

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Exhausted
from criollo.workers.messages import Packed, Unpacked
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

OPAQUE = "trusted.overlay.opaque"


def write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


async def unpack_into(workers: Workers, directory: Path, archive: bytes, **limits: int) -> Unpacked:
    directory.mkdir(exist_ok=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        async with workers.unpack(fd, "auto", **limits) as job:
            await threads.transfers(write_all, job.pipe_fd, archive)
            return await job.result()
    finally:
        os.close(fd)


async def pack_from(workers: Workers, directory: Path) -> tuple[bytes, Packed]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        async with workers.pack(fd) as job:
            archive = await threads.transfers(read_all, job.pipe_fd)
            return archive, await job.result()
    finally:
        os.close(fd)


def unpack(directory: Path, archive: bytes, **limits: int) -> Unpacked:
    async def once() -> Unpacked:
        async with Workers() as workers:
            return await unpack_into(workers, directory, archive, **limits)

    return asyncio.run(once())


def snapshot(top: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree that a layer describes, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    pending = [b"."]
    inodes: dict[int, bytes] = {}
    while pending:
        name = pending.pop()
        path = os.path.join(os.fsencode(top), name)
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            content = Path(os.fsdecode(path)).read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = status.st_rdev
        elif kind == stat.S_IFDIR:
            pending += sorted((os.path.join(name, each) for each in os.listdir(path)), reverse=True)
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
        first = inodes.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, tuple(xattrs.items()), first)
    return found


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory outside the layer that must look the same afterwards; so must our descriptors and children."""
    place = tmp_path / "canary"
    place.mkdir(mode=0o750)
    (place / "f").write_text("sings")
    (place / "d").mkdir()
    before = snapshot(place)
    threads.close()
    descriptors = leaks.descriptors()
    yield place
    threads.close()
    assert snapshot(place) == before
    assert leaks.new_descriptors(descriptors) == []
    assert leaks.fork_servers() == []


@pytest.fixture
def layer(tmp_path: Path, canary: Path) -> Path:
    return tmp_path / "layer"


def test_files_have_all_their_attributes(layer: Path) -> None:
    archive = (
        entry(b"./", b"5", mode=b"0000711\0", uid=b"0000012\0")
        + entry(b"d", b"5", mode=b"0003775\0", gid=b"0000005\0", mtime=b"00000000100\0")
        + pax((b"mtime", b"1234567890.987654321"), (b"SCHILY.xattr.user.key", b"value\0\xff"))
        + entry(b"d/f", content=b"content", mode=b"0006755\0", uid=b"0000007\0", gid=b"0000010\0")
        + entry(b"d/g", content=b"", mode=b"0000000\0")
        + header(b"d/h", b"1", link=b"d/f")
        + header(b"d/s", b"2", link=b"/anywhere", uid=b"0000011\0", mtime=b"00000000144\0")
        + entry(b"p", b"6", mode=b"0000622\0")
        + entry(b"c", b"3", mode=b"0000666\0", major=b"0000001\0", minor=b"0000003\0", uid=b"0000001\0")
        + END
    )
    result = unpack(layer, archive)
    assert result.diff_id == "sha256:" + hashlib.sha256(archive).hexdigest()
    assert result.implied == ()
    assert result.size_bytes == 7
    found = snapshot(layer)
    assert found[b"."][:3] == (stat.S_IFDIR | 0o711, 10, 0)
    assert found[b"./d"][:4] == (stat.S_IFDIR | 0o3775, 0, 5, 64 * 10**9)
    attributes = (("user.key", b"value\0\xff"),)
    whole = (stat.S_IFREG | 0o6755, 7, 8, 1234567890987654321, b"content", attributes, b"./d/f")
    assert found[b"./d/f"] == whole
    assert found[b"./d/h"] == whole
    assert found[b"./d/g"][:3] == (stat.S_IFREG, 0, 0)
    assert found[b"./d/s"] == (stat.S_IFLNK | 0o777, 9, 0, 100 * 10**9, b"/anywhere", (), b"./d/s")
    assert found[b"./p"][0] == stat.S_IFIFO | 0o622
    assert found[b"./c"][:2] == (stat.S_IFCHR | 0o666, 1)
    assert found[b"./c"][4] == os.makedev(1, 3)


def test_setgid_directory_and_default_acl_do_not_spread(layer: Path) -> None:
    acl = bytes.fromhex("02000000 01000700ffffffff 04000700ffffffff 10000700ffffffff 20000700ffffffff")
    archive = (
        pax((b"SCHILY.xattr.system.posix_acl_default", acl)) + entry(b"d", b"5", mode=b"0002755\0", gid=b"0000005\0")
        + entry(b"d/f") + entry(b"d/e", b"5", mode=b"0000700\0") + END
    )  # fmt: skip
    unpack(layer, archive)
    found = snapshot(layer)
    assert found[b"./d/f"][:3] == (stat.S_IFREG | 0o644, 0, 0)
    assert found[b"./d/e"][:3] == (stat.S_IFDIR | 0o700, 0, 0)
    assert found[b"./d"][0] == stat.S_IFDIR | 0o2755
    assert dict(found[b"./d"][5])["system.posix_acl_default"] == acl  # type: ignore[call-overload]


def test_whiteouts_become_overlays_own(layer: Path) -> None:
    archive = (
        entry(b"a/.wh.gone") + entry(b"a/.wh.with-content", content=b"x" * 70_000)
        + entry(b"b/", b"5") + entry(b"b/.wh..wh..opq") + entry(b"b/kept")
        + entry(b".wh..wh.plnk", b"5") + entry(b".wh..wh.plnk/1.2") + entry(b"a/.wh..wh.aufs")
        + entry(b".wh.c") + entry(b"c/", b"5") + entry(b".wh.d") + entry(b"d/e") + entry(b".wh.f") + entry(b"f", content=b"new")
        + entry(b"g") + entry(b".wh.g") + entry(b"h/", b"5") + entry(b"h/i") + entry(b".wh.h") + entry(b".wh..wh..opq") + END
    )  # fmt: skip
    unpack(layer, archive)
    found = snapshot(layer)
    whiteouts = {name for name, (mode, *_, content, _, _) in found.items() if mode == stat.S_IFCHR and content == 0}
    opaque = {name for name, each in found.items() if (OPAQUE, b"y") in each[5]}  # type: ignore[operator]
    assert whiteouts == {b"./a/gone", b"./a/with-content"}
    assert opaque == {b".", b"./b", b"./c", b"./d", b"./h"}
    assert {b"./d/e", b"./f", b"./g", b"./h/i", b"./b/kept"} <= found.keys()
    assert not [name for name in found if b".wh." in name]


def test_a_directory_hides_what_the_thing_that_it_replaces_hid(layer: Path) -> None:
    archive = (
        entry(b"a/", b"5") + header(b"l", b"2", link=b"a")
        + entry(b"l/.wh.b") + entry(b"a/b/", b"5") + entry(b"l/.wh.c") + entry(b"a/c/d")
        + entry(b"f") + entry(b"f/", b"5") + header(b"s", b"2", link=b"a") + entry(b"s", b"5") + END
    )  # fmt: skip
    unpack(layer, archive)
    found = snapshot(layer)
    opaque = {name for name, each in found.items() if (OPAQUE, b"y") in each[5]}  # type: ignore[operator]
    assert opaque == {b"./a/b", b"./a/c", b"./f", b"./s"}
    assert {name for name, each in found.items() if each[0] == stat.S_IFCHR} == set()


def test_attributes_of_overlay_are_dropped(layer: Path) -> None:
    keys = (b"trusted.overlay.opaque", b"trusted.overlay.redirect", b"user.overlay.opaque", b"security.selinux", b"user.kept")
    archive = pax(*((b"SCHILY.xattr." + key, b"y") for key in keys)) + entry(b"d", b"5") + END
    unpack(layer, archive)
    assert snapshot(layer)[b"./d"][5] == (("user.kept", b"y"),)


def test_capabilities_of_files_are_kept(layer: Path) -> None:
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    archive = pax((b"SCHILY.xattr.security.capability", value)) + entry(b"f", content=b"x" * 300_000, uid=b"0000005\0") + END
    unpack(layer, archive)
    assert os.getxattr(layer / "f", "security.capability") == value


def test_missing_parents_are_made_and_told(layer: Path) -> None:
    result = unpack(layer, entry(b"a/b/c/f") + entry(b"a/b/", b"5", mode=b"0000700\0") + END)
    assert result.implied == ("", "a", "a/b/c")
    assert {name: each[0] for name, each in snapshot(layer).items()} == {
        b".": stat.S_IFDIR | 0o755,
        b"./a": stat.S_IFDIR | 0o755,
        b"./a/b": stat.S_IFDIR | 0o700,
        b"./a/b/c": stat.S_IFDIR | 0o755,
        b"./a/b/c/f": stat.S_IFREG | 0o644,
    }


@pytest.mark.parametrize(
    ("name", "made"),
    [
        (b"/x", b"./x"), (b"//a//x", b"./a/x"), (b"./x", b"./x"), (b"././x", b"./x"), (b"a/../x", b"./x"), (b"a/./x", b"./a/x"),
        (b".x/..y", b"./.x/..y"), (b"x/.", b"./x"), (b"\xff\n", b"./\xff\n"), (b"...", b"./..."),
    ],
)  # fmt: skip
def test_names_are_cleaned(layer: Path, name: bytes, made: bytes) -> None:
    unpack(layer, entry(name, content=b"here") + END)
    assert snapshot(layer)[made][4] == b"here"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (a, b)
        for a in ("file", "link", "dangling", "directory", "device", "fifo")
        for b in ("file", "link", "directory", "device", "hard")
    ],
)
def test_last_entry_of_a_name_wins(layer: Path, before: str, after: str) -> None:
    shapes = {
        "file": entry(b"x", content=b"file"),
        "link": header(b"x", b"2", link=b"t"),
        "dangling": header(b"x", b"2", link=b"/nowhere/at/all"),
        "directory": entry(b"x", b"5") + entry(b"x/y/", b"5") + entry(b"x/y/z"),
        "device": entry(b"x", b"3", major=b"0000001\0", minor=b"0000003\0"),
        "fifo": entry(b"x", b"6"),
        "hard": header(b"x", b"1", link=b"t"),
    }
    modes = {
        "file": stat.S_IFREG,
        "link": stat.S_IFLNK,
        "directory": stat.S_IFDIR,
        "device": stat.S_IFCHR,
        "hard": stat.S_IFREG,
    }
    unpack(layer, entry(b"t", content=b"target") + shapes[before] + shapes[after] + END)
    found = snapshot(layer)
    assert stat.S_IFMT(int(str(found[b"./x"][0]))) == modes[after]
    assert found[b"./t"][4] == b"target"
    assert [name for name in found if b"removing" in name] == []


def hostile(canary: bytes) -> dict[str, bytes]:
    """Archives that aim at the directory `canary`, or at anything outside."""
    up = b"../" * 30 + canary.lstrip(b"/")
    return {
        "link then through it": header(b"a", b"2", link=canary) + entry(b"a/f", content=b"evil"),
        "relative link": header(b"a", b"2", link=up) + entry(b"a/f", content=b"evil"),
        "link to root": header(b"a", b"2", link=b"/") + entry(b"a" + canary + b"/f", content=b"evil"),
        "chain of links": header(b"a", b"2", link=b"/")
        + header(b"b", b"2", link=b"a" + canary)
        + entry(b"b/f", content=b"evil"),
        "directory over link": header(b"a", b"2", link=canary)
        + entry(b"a", b"5", mode=b"0000777\0")
        + entry(b"a/f", content=b"e"),
        "proc": header(b"a", b"2", link=b"/proc/self/cwd/..") + entry(b"a/x"),
        "proc fd": header(b"a", b"2", link=b"/proc/self/fd/3") + entry(b"a/x"),
        "dots": entry(b"../../canary/f", content=b"evil"),
        "dots inside": entry(b"a/../../canary/f", content=b"evil"),
        "absolute": entry(canary + b"/f", content=b"evil"),
        "root is a link": header(b".", b"2", link=canary) + entry(b"f", content=b"evil"),
        "root is a file": entry(b".", content=b"evil"),
        "hard link out": header(b"a", b"1", link=canary + b"/f", mode=b"0004777\0") + entry(b"a", content=b"evil"),
        "hard link up": header(b"a", b"1", link=up + b"/f"),
        "hard link to link": header(b"l", b"2", link=canary + b"/f")
        + header(b"h", b"1", link=b"l", mode=b"0004777\0", uid=b"0000007\0"),
        "chmod through link": header(
            b"l", b"2", link=canary + b"/f", mode=b"0004777\0", uid=b"0000007\0", mtime=b"00000000001\0"
        ),
        "xattr through link": pax((b"SCHILY.xattr.trusted.x", b"y")) + header(b"l", b"2", link=canary + b"/f"),
        "file over link": header(b"l", b"2", link=canary + b"/f") + entry(b"l", content=b"evil"),
        "whiteout through link": header(b"a", b"2", link=canary) + entry(b"a/.wh.f"),
        "opaque through link": header(b"a", b"2", link=canary) + entry(b"a/.wh..wh..opq"),
        "whiteout of dots": entry(b".wh..."),
        "whiteout of dot": entry(b".wh.."),
        "whiteout of nothing": entry(b".wh."),
        "whiteout below": entry(b".wh../x") + entry(b"a/.wh.../f"),
        "whiteout of itself": entry(b".wh.x") + entry(b".wh..wh.x") + entry(b".wh.x"),
        "loop": header(b"a", b"2", link=b"b") + header(b"b", b"2", link=b"a") + entry(b"a/f"),
        "replaced parent": entry(b"d/", b"5")
        + entry(b"d/e")
        + header(b"d", b"2", link=canary)
        + entry(b"d/f", content=b"evil"),
        "times of a replaced directory": entry(b"d/", b"5", mode=b"0006777\0") + header(b"d", b"2", link=canary),
        "deep": b"".join(entry(b"d/" * depth, b"5") for depth in (1, 500, 1000, 2000)) + entry(b"d", content=b"flat"),
        "deeper than a path": entry(b"d/" * 1900, b"5")
        + header(b"l", b"2", link=b"d/" * 1900)
        + entry(b"l/" + b"e/" * 1000 + b"f"),
        "long component": entry(b"n" * 99 + b"/" + b"o" * 99) + pax((b"path", b"p" * 300)) + entry(b"x"),
        "hard link to nothing": header(b"a", b"1", link=b"b"),
        "hard link to itself": entry(b"a") + header(b"a", b"1", link=b"./a"),
        "hard link to later": header(b"a", b"1", link=b"b") + entry(b"b"),
        "hard link to directory": entry(b"d", b"5") + header(b"a", b"1", link=b"d"),
        "hard link to root": header(b"a", b"1", link=b"/"),
        "below a file": entry(b"a") + entry(b"a/b"),
        "empty name": entry(b"", content=b"evil"),
        "empty link": header(b"a", b"2"),
        "bad capability": pax((b"SCHILY.xattr.security.capability", b"short")) + entry(b"a"),
        "empty capability": pax((b"SCHILY.xattr.security.capability", b"")) + entry(b"a"),
        "large attribute": pax((b"SCHILY.xattr.user.big", b"x" * 70_000)) + entry(b"a"),
        "attribute without name": pax((b"SCHILY.xattr.", b"x")) + entry(b"a"),
        "odd device": entry(b"a", b"4", major=b"7777777\0", minor=b"7777777\0"),
        "far times": b"".join(pax((b"mtime", time)) + entry(b"t") for time in (b"-99999999999", b"253402300800.5", b"9" * 18)),
        "device as whiteout": entry(b"a", b"3"),
        "programs": b"".join(
            entry(b"usr/bin/" + name, content=b"#!/bin/sh\ntouch /ran", mode=b"0000755\0") for name in (b"unpigz", b"xz")
        )
        + entry(b"etc/nsswitch.conf", content=b"passwd: evil")
        + entry(b"lib/libnss_evil.so.2", content=b"\x7fELF"),
    }


REFUSED = {
    "link then through it",
    "relative link",
    "chain of links",
    "proc",
    "proc fd",
    "dots",
    "dots inside",
    "root is a link",
    "root is a file",
    "hard link out",
    "hard link up",
    "whiteout through link",
    "opaque through link",
    "whiteout of dots",
    "whiteout of dot",
    "whiteout of nothing",
    "loop",
    "replaced parent",
    "long component",
    "hard link to nothing",
    "hard link to later",
    "hard link to directory",
    "hard link to root",
    "below a file",
    "empty name",
    "empty link",
    "bad capability",
    "empty capability",
    "large attribute",
    "odd device",
    "attribute without name",
}


@pytest.mark.parametrize("shape", hostile(b"/x"))
def test_nothing_leaves_the_layer(canary: Path, layer: Path, shape: str) -> None:
    archive = hostile(os.fsencode(canary))[shape] + END
    refused: CriolloError | None = None
    try:
        unpack(layer, gzip.compress(archive))
    except CriolloError as error:
        refused = error
    assert (type(refused) if refused else None) == (Damaged if shape in REFUSED else None), refused
    shutil.rmtree(layer) if "deep" not in shape else subprocess.run(["rm", "-rf", layer], check=True)


def test_links_lead_to_places_in_the_layer(layer: Path) -> None:
    archive = entry(b"real/", b"5") + header(b"a", b"2", link=b"/real") + entry(b"a/f", content=b"in") + END
    unpack(layer, archive)
    assert (layer / "real/f").read_bytes() == b"in"


def test_sparse_file_has_holes(layer: Path) -> None:
    records = (b"GNU.sparse.map", b"1048576,3,10485760,2"), (b"GNU.sparse.size", b"20971520")
    unpack(layer, pax(*records) + entry(b"f", content=b"abcde") + END)
    content = (layer / "f").read_bytes()
    assert len(content) == 20 << 20
    assert content[1048576:1048579] + content[10485760:10485762] == b"abcde"
    assert not content.replace(b"abc", b"").replace(b"de", b"").strip(b"\0")
    assert (layer / "f").stat().st_blocks * 512 < 1 << 20


def test_large_file_comes_in_pieces(layer: Path) -> None:
    content = os.urandom(5_000_001)
    unpack(layer, gzip.compress(entry(b"f", content=content, mode=b"0004755\0") + END, 1))
    assert (layer / "f").read_bytes() == content
    assert (layer / "f").stat().st_mode == stat.S_IFREG | 0o4755


def test_bomb_ends_at_the_limit(layer: Path) -> None:
    archive = gzip.compress(header(b"f", size=b"%011o\0" % (1 << 30)) + bytes(200 << 20))
    with pytest.raises(Exhausted, match="104857600"):
        unpack(layer, archive, limit_bytes=100 << 20)


def test_entries_end_at_the_limit(layer: Path) -> None:
    with pytest.raises(Damaged, match="100 entries"):
        unpack(layer, b"".join(entry(b"%d" % number) for number in range(200)) + END, limit_entries=100)


def test_truncated_stream_is_damaged(layer: Path) -> None:
    archive = gzip.compress(entry(b"f", content=os.urandom(10_000)) + END)
    with pytest.raises(Damaged, match="ends in the middle"):
        unpack(layer, archive[:5000])


def test_trailing_bytes_count_for_the_digest(layer: Path) -> None:
    archive = entry(b"f") + END + b"junk" * 1000
    assert unpack(layer, gzip.compress(archive)).diff_id == "sha256:" + hashlib.sha256(archive).hexdigest()


TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0/"), min_size=1, max_size=60)


@st.composite
def trees(draw: st.DrawFn) -> bytes:
    """An archive such as real tools write: parents first, each name once, links to what is there."""
    room = io.BytesIO()
    taken: dict[str, bool] = {"": True}
    files: list[str] = []
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    with tarfile.open(fileobj=room, mode="w", format=form) as archive:
        root = tarfile.TarInfo("./")
        root.type, root.mode, root.mtime = tarfile.DIRTYPE, 0o755, 1
        archive.addfile(root)
        for _ in range(draw(st.integers(0, 12))):
            parent = draw(st.sampled_from(sorted(name for name, is_directory in taken.items() if is_directory)))
            base = draw(TEXT)
            name = f"{parent}/{base}".lstrip("/")
            if name in taken or base in (".", "..") or base.startswith(".wh.") or len(base.encode()) > 255:
                continue
            info = tarfile.TarInfo(name)
            kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE] + [tarfile.LNKTYPE] * bool(files)
            info.type = draw(st.sampled_from(kinds))
            info.mode = draw(st.integers(0, 0o7777))
            info.uid, info.gid = draw(st.integers(0, 200_000)), draw(st.integers(0, 200_000))
            info.mtime = draw(st.integers(0, 2**32))
            if form == tarfile.PAX_FORMAT and info.type in (tarfile.REGTYPE, tarfile.DIRTYPE) and draw(st.booleans()):
                info.pax_headers = {f"SCHILY.xattr.user.{draw(st.text('ab.', min_size=1, max_size=9))}": draw(TEXT)}
            content = draw(st.binary(max_size=2000)) if info.type == tarfile.REGTYPE else b""
            info.size = len(content)
            if info.type == tarfile.SYMTYPE:
                info.linkname = draw(TEXT)
            elif info.type == tarfile.LNKTYPE:
                info.linkname = draw(st.sampled_from(files))
            elif info.type == tarfile.REGTYPE:
                files.append(name)
            archive.addfile(info, io.BytesIO(content))
            taken[name] = info.type == tarfile.DIRTYPE
    return room.getvalue()


def without_umask(path: Path, archive: bytes) -> None:
    path.mkdir()
    command = ["tar", "-xpf", "-", "--numeric-owner", "--same-owner", "--xattrs", "--delay-directory-restore", "-C", str(path)]
    subprocess.run(command, input=archive, check=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archive=trees())
def test_trees_are_those_of_gnu_tar_and_survive_packing(tmp_path: Path, archive: bytes) -> None:
    for name in ("ours", "theirs", "again"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)

    async def through() -> None:
        async with Workers() as workers:
            await unpack_into(workers, tmp_path / "ours", archive)
            first, told = await pack_from(workers, tmp_path / "ours")
            assert told.diff_id == "sha256:" + hashlib.sha256(first).hexdigest()
            assert told.size_bytes == len(first)
            again = await unpack_into(workers, tmp_path / "again", first)
            assert again.diff_id == told.diff_id
            assert (await pack_from(workers, tmp_path / "again"))[0] == first

    asyncio.run(through())
    threads.close()
    without_umask(tmp_path / "theirs", archive)
    ours = snapshot(tmp_path / "ours")
    assert ours == snapshot(tmp_path / "theirs")
    assert ours == snapshot(tmp_path / "again")


def oci_layout(place: Path, archive: bytes) -> None:
    """An image of one gzip layer, tagged `t`."""
    (place / "blobs/sha256").mkdir(parents=True)

    def add(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (place / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(archive).hexdigest()]}
    config = add(
        json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode(), "config.v1+json"
    )
    layer = add(gzip.compress(archive), "layer.v1.tar+gzip")
    manifest = add(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(archive=trees())
def test_trees_are_those_of_umoci(tmp_path: Path, archive: bytes) -> None:
    for name in ("ours", "bundle", "layout"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    unpack(tmp_path / "ours", archive)
    threads.close()
    oci_layout(tmp_path / "layout", archive)
    command = ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:t", tmp_path / "bundle"]
    subprocess.run(command, check=True, capture_output=True)
    assert snapshot(tmp_path / "ours") == snapshot(tmp_path / "bundle/rootfs")


def test_whiteouts_survive_packing(layer: Path, tmp_path: Path) -> None:
    archive = entry(b"a/", b"5") + entry(b"a/.wh.x") + entry(b"b/", b"5") + entry(b"b/.wh..wh..opq") + entry(b"b/f") + END

    async def through() -> bytes:
        async with Workers() as workers:
            await unpack_into(workers, layer, archive)
            packed, _ = await pack_from(workers, layer)
            await unpack_into(workers, tmp_path / "again", packed)
            return packed

    packed = asyncio.run(through())
    with tarfile.open(fileobj=io.BytesIO(packed)) as read:
        assert read.getnames() == [".", "a", "a/.wh.x", "b", "b/.wh..wh..opq", "b/f"]
    first, again = snapshot(layer), snapshot(tmp_path / "again")
    assert first.pop(b"./a/x")[0] == again.pop(b"./a/x")[0] == stat.S_IFCHR
    assert first == again


def test_attributes_and_sizes_survive_packing(layer: Path, tmp_path: Path) -> None:
    records = (b"SCHILY.xattr.user.k", b"v"), (b"mtime", b"-5.25"), (b"uid", b"4000000000"), (b"path", b"n" * 200)
    archive = pax(*records) + entry(b"x", content=b"abc") + END

    async def through() -> None:
        async with Workers() as workers:
            await unpack_into(workers, layer, archive)
            await unpack_into(workers, tmp_path / "again", (await pack_from(workers, layer))[0])

    asyncio.run(through())
    found = snapshot(tmp_path / "again")
    assert found == snapshot(layer)
    assert found[b"./" + b"n" * 200][1:4] == (4000000000, 0, -5_250_000_000)
