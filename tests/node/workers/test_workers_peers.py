"""workers.unpack beside other unpackers: two layers under an overlay look as umoci makes them, and no archive does harm."""

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile  # noqa: TID251  # what makes the archives
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import leaks
from support.tars import END, entry, header, pax
from test_workers_unpack import snapshot, unpack, unpack_into

from criollo.aio import threads
from criollo.errors import Damaged, Exhausted
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

EACH = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BASES = st.sampled_from(["a", "b", "c", "d", "é", "x y", ".hidden", "wh.", "n" * 80])
KINDS = {"file": tarfile.REGTYPE, "directory": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE}


class Pair(NamedTuple):
    """Two layers, lower and upper."""

    lower: bytes
    upper: bytes

    def __repr__(self) -> str:
        return " | ".join(
            ", ".join(f"{each.name}:{each.type.decode()}:{each.mode:o}" for each in tarfile.TarFile(fileobj=io.BytesIO(layer)))
            for layer in self
        )


class Writer:
    """A layer in the making: every entry after its parents, which are described first."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self._room = io.BytesIO()
        self._archive = tarfile.TarFile(fileobj=self._room, mode="w", format=tarfile.PAX_FORMAT)
        self.kinds: dict[str, str] = {}

    def add(self, name: str, kind: str) -> None:
        parent = name.rpartition("/")[0]
        if parent and parent not in self.kinds:
            self.add(parent, "directory")
        draw = self._draw
        info = tarfile.TarInfo(name or "./")
        info.type = KINDS[kind]
        info.mode = draw(st.sampled_from([0o755, 0o700, 0o1777, 0o644, 0o4711, 0o2750]))
        info.uid, info.gid = draw(st.integers(0, 3)), draw(st.sampled_from([0, 5, 200_000]))
        info.mtime = draw(st.integers(1, 2**31))
        content = draw(st.binary(max_size=40)) if kind == "file" else b""
        info.size = len(content)
        info.linkname = draw(BASES) if kind == "link" else ""
        if kind in ("file", "directory") and draw(st.booleans()):
            info.pax_headers = {"SCHILY.xattr.user.k": draw(st.text("abc=", min_size=1, max_size=5))}
        self._archive.addfile(info, io.BytesIO(content))
        self.kinds[name] = kind

    def mark(self, name: str, marker: str) -> None:
        """A whiteout or an opaque mark in the directory `name`."""
        if name and name not in self.kinds:
            self.add(name, "directory")
        self._archive.addfile(tarfile.TarInfo(f"{name}/{marker}".lstrip("/")))

    def finish(self) -> bytes:
        self._archive.close()
        return self._room.getvalue()


@st.composite
def two_layers(draw: st.DrawFn) -> Pair:
    """A layer, and one that changes it in every way that there is: each change in a subtree of its own."""
    lower = Writer(draw)
    lower.add("", "directory")
    for _ in range(draw(st.integers(1, 9))):
        parents = sorted(name for name, kind in lower.kinds.items() if kind == "directory" and name.count("/") < 3)
        name = f"{draw(st.sampled_from(parents))}/{draw(BASES)}".lstrip("/")
        if name not in lower.kinds:
            lower.add(name, draw(st.sampled_from(sorted(KINDS))))
    upper = Writer(draw)
    upper.add("", "directory")
    changed: list[str] = []
    for name in draw(st.permutations(sorted({*lower.kinds, "absent"} - {""}))):
        if any(f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/") for other in changed):
            continue
        if draw(st.booleans()) and draw(st.booleans()):
            continue
        changed.append(name)
        _change(draw, upper, name, lower.kinds.get(name, ""))
    return Pair(lower.finish(), upper.finish())


def _change(draw: st.DrawFn, upper: Writer, name: str, was: str) -> None:
    parent, _, base = name.rpartition("/")
    what = draw(
        st.sampled_from(["gone", "gone", "replaced", "replaced after whiteout"] + ["opaque", "added"] * (was == "directory"))
    )
    if what in ("gone", "replaced after whiteout"):
        upper.mark(parent, f".wh.{base}")
    if what.startswith("replaced"):
        kind = draw(st.sampled_from(sorted(KINDS)))
        upper.add(name, kind)
        if kind == "directory":
            upper.add(f"{name}/new", "file")
    if what == "added":
        upper.add(f"{name}/added", draw(st.sampled_from(sorted(KINDS))))
    if what == "opaque":
        first = draw(st.booleans())
        if first:
            upper.mark(name, ".wh..wh..opq")
        upper.add(f"{name}/kept", "file")
        if not first:
            upper.mark(name, ".wh..wh..opq")


def layout(place: Path, archives: Sequence[bytes]) -> None:
    """An image of these layers, tagged `t`."""
    (place / "blobs/sha256").mkdir(parents=True)

    def add(content: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        (place / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(each).hexdigest() for each in archives]}
    document = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    config = add(json.dumps(document).encode(), "config.v1+json")
    layers = [add(gzip.compress(each), "layer.v1.tar+gzip") for each in archives]
    manifest = add(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode(), "manifest.v1+json")
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@contextlib.contextmanager
def overlay(top: Path, below: Path, target: Path) -> Iterator[Path]:
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "overlay", "-o", f"ro,lowerdir={top}:{below}", "overlay", target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


@EACH
@given(layers=two_layers())
def test_layers_under_an_overlay_are_what_umoci_makes_of_them(tmp_path: Path, layers: Pair) -> None:
    for name in ("lower", "upper", "bundle", "layout"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)

    async def both() -> None:
        async with Workers() as workers:
            for name, archive in zip(("lower", "upper"), layers, strict=True):
                await unpack_into(workers, tmp_path / name, archive)

    asyncio.run(both())
    threads.close()
    layout(tmp_path / "layout", layers)
    command = ["umoci", "unpack", "--image", f"{tmp_path / 'layout'}:t", tmp_path / "bundle"]
    subprocess.run(command, check=True, capture_output=True)
    with overlay(tmp_path / "upper", tmp_path / "lower", tmp_path / "merged") as merged:
        assert snapshot(merged) == snapshot(tmp_path / "bundle/rootfs")


# Any archive at all ---------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(
    [b"a", b"b", b"..", b".", b"", b".wh.a", b".wh.b", b".wh..wh..opq", b".wh..", b".wh.", b"proc", b"canary"]
)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)
OWNERS = {"mode": b"0006777\0", "uid": b"0000007\0", "gid": b"0000011\0"}


@st.composite
def any_entry(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([b"0", b"0", b"1", b"2", b"2", b"3", b"4", b"5", b"5", b"6"]))
    more = dict(OWNERS) if draw(st.booleans()) else {}
    if kind in b"12":
        more["link"] = draw(NAMES | st.sampled_from([b"/", b"/canary", b"../canary", b"/proc/self/root", b"/proc/self/fd/3"]))
    if kind in b"34":
        more["minor"] = draw(st.sampled_from([b"0000000\0", b"0000003\0"]))
    before = b""
    if draw(st.integers(0, 4)) == 0:
        key = draw(st.sampled_from([b"trusted.overlay.opaque", b"user.k", b"security.capability", b"trusted.k", b"system.x"]))
        before = pax((b"SCHILY.xattr." + key, draw(st.binary(max_size=30))))
    return before + entry(draw(NAMES), kind, b"content" if kind == b"0" else b"", **more)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(any_entry(), max_size=12))
def test_any_archive_is_unpacked_or_damaged_and_stays_in_its_layer(tmp_path: Path, entries: list[bytes]) -> None:
    canary, layer = tmp_path / "canary", tmp_path / "layer"
    shutil.rmtree(layer, ignore_errors=True)
    if not canary.exists():
        canary.mkdir(mode=0o700)
        (canary / "f").write_text("sings")
    before = snapshot(canary)
    with contextlib.suppress(Damaged):
        unpack(layer, b"".join(entries) + END)
    threads.close()
    assert snapshot(canary) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "layer"]
    assert not [name for name in snapshot(layer) if b".removing" in name]
    assert leaks.fork_servers() == []


# Bombs ----------------------------------------------------------------------------------------------------------------


def test_directories_that_nobody_describes_count_as_entries(tmp_path: Path) -> None:
    deep = b"".join(entry(b"%d/" % number + b"d/" * 40 + b"f") for number in range(4))
    with pytest.raises(Damaged, match="100 entries"):
        unpack(tmp_path / "layer", deep + END, limit_entries=100)


def test_a_sparse_file_has_a_largest_size(tmp_path: Path) -> None:
    huge = pax((b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % (1 << 45))) + header(b"f") + END
    with pytest.raises(Damaged, match="sparse file"):
        unpack(tmp_path / "huge", huge)
    over = pax((b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"%d" % (1 << 30))) + header(b"f") + END
    with pytest.raises(Damaged, match="File too large"):
        unpack(tmp_path / "over", over, limit_bytes=1 << 20)


def test_a_bomb_in_a_bomb_is_a_file(tmp_path: Path) -> None:
    inner = gzip.compress(bytes(64 << 20))
    assert unpack(tmp_path / "layer", gzip.compress(entry(b"f", content=inner) + END)).size_bytes == len(inner)


@pytest.mark.parametrize("members", [1, 3])
def test_members_share_one_limit(tmp_path: Path, members: int) -> None:
    bomb = gzip.compress(bytes(4 << 20)) * members
    with pytest.raises(Exhausted, match="3145728"):
        unpack(tmp_path / "layer", bomb, limit_bytes=3 << 20)
