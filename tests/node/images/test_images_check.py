"""images.check with real workers: every way a layer's tree can differ from its archive is named, and nothing else is."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from support import leaks
from support.image_store import image_store, planned
from support.images import Entry, directory, file, hardlink, make_image, symlink
from support.waiting import cancelled_within, until

from criollo.aio import threads
from criollo.images import check, seals
from criollo.images.check import Pace, Scope, check_stores, look, verify
from criollo.images.collect import collect_layers, drop_layers
from criollo.images.commit import add_layer, record
from criollo.images.context import Images
from criollo.model import image as records
from criollo.model.care import DAMAGED, MISSING, Report
from criollo.model.ids import ImageId
from criollo.storage.layers import Layers
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node

TREE: list[Entry] = [
    directory("etc"),
    file("etc/passwd", "root:x:0:0\n" * 50),
    file("etc/shadow", "secret", mode=0o600, uid=3, gid=7),
    file("empty"),
    file("usr/lib/deep/er/lib.so", os.urandom(3 << 20), mode=0o755),
    file("usr/bin/su", "setuid", mode=0o4755),
    symlink("lib", "usr/lib"),
    file("lib/through-a-link", "x"),
    hardlink("etc/passwd-", "etc/passwd"),
    Entry("etc/attributes", b"x", xattrs={"user.color": "blue", "trusted.overlay.opaque": "y"}),
    Entry("dev/null", kind=b"3", device=(1, 3), mode=0o666),
    Entry("run/pipe", kind=b"6", mode=0o600),
    file("var/.wh.gone"),
    directory("opt"),
    file("opt/.wh..wh..opq"),
    file("twice", "first" * 1000),
    file("twice", "second"),
]


def run(root: Path, body: Callable[[Images], Coroutine[object, object, None]], entries: list[Entry] = TREE) -> None:
    async def inside(images: Images) -> None:
        async with images.workers:
            await images.layers.open()
            await pull(images, [entries, [file("upper/file", "above")]])
            await body(images)

    with image_store(root, workers=Workers()) as images:
        asyncio.run(inside(images))


async def pull(images: Images, layers: list[list[Entry]]) -> None:
    image = make_image(layers)
    blobs = planned(image)

    def feed(content: bytes) -> Callable[[int], Coroutine[Any, Any, None]]:
        return lambda fd: threads.transfers(_write, fd, content)

    async with asyncio.TaskGroup() as group:
        for blob, layer in zip(blobs, image.layers, strict=True):
            group.create_task(add_layer(images, blob, feed(layer.blob)))
    made = records.Image(
        id=ImageId(image.id),
        names=("docker.io/library/checked:latest",),
        manifest_digest=image.digest,
        manifest=image.manifest,
        config=image.config,
        layers=tuple(blob.name for blob in blobs),
        size_bytes=0,
        pulled_ns=1,
    )
    await record(images, made)


def _write(pipe_fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(pipe_fd, view) :]


def lower(images: Images) -> Path:
    return images.layers.path(images.rows.all()[0].layers[0])


def findings(report: Report) -> list[str]:
    return [text for layer in report.damaged for text in layer.findings]


def test_a_fresh_pull_is_whole_and_proven(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        report = await check_stores(images)
        assert not report.is_damaged, report
        assert (report.layers, report.checked, report.proven) == (2, 2, 1)  # one has an entry that a later one replaced
        assert report.size_bytes > 3 << 20

    run(tmp_path, body)


def test_without_replaced_entries_every_byte_is_proven(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        report = await check_stores(images)
        assert (report.checked, report.proven) == (2, 2)

    run(tmp_path, body, TREE[:-2])


def _flip(path: Path) -> None:
    """One bit, and the time as it was."""
    status = path.stat()
    with path.open("r+b") as opened:
        opened.seek(status.st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _restore_times(path: Path, change: Callable[[], object]) -> None:
    status = path.lstat()
    change()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "bit": (lambda top: _flip(top / "usr/lib/deep/er/lib.so"), "/usr/lib/deep/er/lib.so: content differs near byte 1"),
    "bit-of-small": (lambda top: _flip(top / "etc/passwd"), "/etc/passwd: content differs near byte 0"),
    "truncated": (lambda top: os.truncate(top / "etc/passwd", 5), "/etc/passwd: size is 5, was 550"),
    "mode": (lambda top: (top / "etc/shadow").chmod(0o644), "/etc/shadow: mode is 0644, was 0600"),
    "setuid": (lambda top: (top / "usr/bin/su").chmod(0o755), "/usr/bin/su: mode is 0755, was 4755"),
    "owner": (lambda top: os.chown(top / "etc/shadow", 0, 0), "/etc/shadow: owner is 0:0, was 3:7"),
    "time": (lambda top: os.utime(top / "empty"), "/empty: was modified at another time"),
    "removed": (lambda top: _restore_times(top / "etc", (top / "etc/shadow").unlink), "/etc/shadow: is missing"),
    "added": (lambda top: _restore_times(top / "etc", (top / "etc/new").touch), "/etc/new: does not belong there"),
    "added-in-implied": (lambda top: (top / "usr/lib/new").touch(), "/usr/lib/new: does not belong there"),
    "attribute": (lambda top: os.setxattr(top / "etc/attributes", "user.color", b"red"), "attribute user.color differs"),
    "attribute-gone": (lambda top: os.removexattr(top / "etc/attributes", "user.color"), "attribute user.color is missing"),
    "attribute-new": (lambda top: os.setxattr(top / "etc/passwd", "user.x", b"1"), "user.x does not belong there"),
    "not-opaque": (lambda top: os.removexattr(top / "opt", "trusted.overlay.opaque"), "trusted.overlay.opaque is missing"),
    "whiteout": (lambda top: (top / "var/gone").unlink(), "/var/gone: is missing"),
    "type": (lambda top: _replace_with_directory(top / "empty"), "/empty: is a directory, was a file"),
    "link": (lambda top: _relink(top / "lib"), "/lib: leads elsewhere"),
    "hard-link": (lambda top: _copy_apart(top / "etc/passwd-"), "is no longer the same file as"),
    "device": (lambda top: _other_device(top / "dev/null"), "/dev/null: is device 1:5, was 1:3"),
}


def _replace_with_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _relink(path: Path) -> None:
    status = path.lstat()
    path.unlink()
    path.symlink_to("/etc")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_apart(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def _other_device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o20666, os.makedev(1, 5))


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_check_names_what_changed(tmp_path: Path, change: str) -> None:
    act, expected = CHANGES[change]

    async def body(images: Images) -> None:
        act(lower(images))
        report = await check_stores(images)
        assert report.is_damaged
        (layer,) = report.damaged
        assert layer.state == DAMAGED
        assert layer.images == ["docker.io/library/checked:latest"]
        assert any(expected in text for text in layer.findings), layer.findings
        assert not (await check_stores(images, quick=True)).is_damaged

    run(tmp_path, body)


def test_a_missing_directory_is_found_by_the_quick_check(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        lower(images).rename(tmp_path / "away")
        (layer,) = (await check_stores(images, quick=True)).damaged
        assert layer.state == MISSING

    run(tmp_path, body)


def test_a_layer_without_a_seal_cannot_be_checked_and_is_no_damage(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        seals.remove(images.layers, os.listdir(tmp_path / "seals"))
        report = await check_stores(images)
        assert not report.is_damaged
        assert len(report.unchecked) == 2

    run(tmp_path, body)


def test_a_broken_seal_is_told_and_proves_nothing(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        _flip(tmp_path / "seals" / lower(images).name)
        assert "seal is broken" in " ".join(findings(await check_stores(images)))

    run(tmp_path, body)


def test_a_seal_goes_with_its_layer(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        images.rows.remove(images.rows.all()[0].id)
        await collect_layers(images)
        assert os.listdir(tmp_path / "seals") == []

    run(tmp_path, body)


def test_documents_are_held_against_their_digests(tmp_path: Path) -> None:
    async def body(images: Images) -> None:
        rows = cast(Any, images.rows)
        rows._database.execute("UPDATE image SET config = ?", b'{"rootfs":{"type":"layers","diff_ids":[]}}')
        rows._reload(images.rows.all()[0].id)
        (broken,) = (await check_stores(images, quick=True)).broken
        assert "its config is not what the image id says" in broken.findings

    run(tmp_path, body)


@pytest.mark.parametrize(("holder", "name"), [(os, "open"), (seals, "open_seal")])
def test_who_leaves_while_a_layer_is_opened_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holder: object, name: str
) -> None:
    async def body(images: Images) -> None:
        row = images.rows.layer(images.rows.all()[0].layers[0])
        assert row is not None
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, holder, name, verify(images, row, Pace()))
        assert leaks.new_descriptors(before) == []

    run(tmp_path, body)


@pytest.mark.parametrize("quick", [True, False])
def test_a_layer_that_goes_meanwhile_is_nobodys_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool) -> None:
    """Its directory goes before its row."""

    async def body(images: Images) -> None:
        layer = images.rows.all()[0].layers[1]
        images.rows.remove(images.rows.all()[0].id)
        begun, go_on, remove = threading.Event(), threading.Event(), seals.remove

        def remove_slowly(layers: Layers, names: Sequence[str]) -> None:
            begun.set()
            assert go_on.wait(60)
            remove(layers, names)

        monkeypatch.setattr(seals, "remove", remove_slowly)
        async with asyncio.TaskGroup() as group:
            group.create_task(drop_layers(images, [layer]))
            await until(begun.is_set)
            looking = group.create_task(look(images, layer, quick=quick))
            await threads.files(lambda: None)
            go_on.set()
        assert looking.result() is None

    run(tmp_path, body)


def test_a_layer_that_comes_meanwhile_is_nobodys_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(images: Images) -> None:
        image = images.rows.all()[0]
        layer = image.layers[1]
        row = images.rows.layer(layer)
        assert row is not None
        images.rows.remove(image.id)
        images.rows.drop_layers([layer])
        has = images.layers.has

        def has_while_it_comes(name: str) -> bool:
            async def come() -> None:
                images.rows.add_layer(row)
                images.rows.add(image)

            if images.rows.layer(name) is None:
                asyncio.run_coroutine_threadsafe(come(), loop).result(60)
            return has(name)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(images.layers, "has", has_while_it_comes)
        assert await look(images, layer, quick=True) is None

    run(tmp_path, body)


def test_a_container_that_goes_meanwhile_has_lost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"1" * 64}

    class Roots:
        def ids(self) -> set[str]:
            return set(here)

    async def body(images: Images) -> None:
        images.roots = cast(Any, Roots())
        monkeypatch.setattr(check, "database_findings", lambda path: here.clear() or [])
        report = await check_stores(images, quick=True, scope=Scope([images.rows.path], [*here, "2" * 64]))
        assert report.containers == ["2" * 64]

    run(tmp_path, body)
