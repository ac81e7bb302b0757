"""Layouts and dirs that are written: whole or not there, taken up again, never what somebody else keeps there."""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import leaks
from support.images import Image, file, make_image, make_index
from support.waiting import cancelled_within

from criollo.aio import threads
from criollo.errors import CriolloError, Damaged, Invalid, NotFound, Unavailable
from criollo.images import copytargets
from criollo.images.copy import CopyWish, copy_image
from criollo.images.copysources import opened_dir, opened_layout
from criollo.images.copytargets import opened_dir_target, opened_layout_target
from criollo.images.progress import Progress
from criollo.oci.image_spec import MAX_INDEX_ENTRIES


@pytest.fixture(autouse=True)
def pools() -> Iterator[None]:
    yield
    threads.close()


def write_dir(path: Path, *images: Image) -> Path:
    """As containers/image writes it; of several an index is made."""
    path.mkdir()
    (path / "manifest.json").write_bytes(images[0].manifest if len(images) == 1 else make_index(images).manifest)
    for image in images:
        (path / f"{image.digest[7:]}.manifest.json").write_bytes(image.manifest)
        for digest, content in image.blobs.items():
            (path / digest[7:]).write_bytes(content)
    return path


def into_layout(source: Path, path: Path, name: str = "") -> str:
    with opened_dir(source) as found, opened_layout_target(path, name) as target:
        return str(asyncio.run(copy_image(found, target, CopyWish(every=True), Progress("t"))).digest)


def out_of_layout(path: Path, name: str, target: Path) -> str:
    async def body() -> str:
        with opened_layout(path, name) as found:
            async with opened_dir_target(target) as written:
                return str((await copy_image(found, written, CopyWish(every=True), Progress("t"))).digest)

    return asyncio.run(body())


def entries(path: Path) -> list[tuple[str, str]]:
    index = json.loads((path / "index.json").read_text())
    assert json.loads((path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    return [
        (each["digest"], each.get("annotations", {}).get("org.opencontainers.image.ref.name", ""))
        for each in index["manifests"]
    ]


def test_images_of_a_layout_are_added_and_replaced_by_name(tmp_path: Path) -> None:
    one, two = make_image([[file("a")]]), make_image([[file("b")]])
    first, second, layout = write_dir(tmp_path / "1", one), write_dir(tmp_path / "2", two), tmp_path / "layout"
    assert into_layout(first, layout, "v1") == one.digest
    into_layout(first, layout, "v2")
    into_layout(second, layout, "v1")
    into_layout(second, layout)
    into_layout(second, layout)
    assert sorted(entries(layout)) == sorted([(one.digest, "v2"), (two.digest, "v1"), (two.digest, "")])
    assert out_of_layout(layout, "v2", tmp_path / "back") == one.digest
    assert (tmp_path / "back/manifest.json").read_bytes() == one.manifest


def test_an_index_comes_back_as_it_was(tmp_path: Path) -> None:
    images = [make_image([[file("a")]]), make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})]
    source = write_dir(tmp_path / "1", *images)
    into_layout(source, tmp_path / "layout", "x")
    out_of_layout(tmp_path / "layout", "", tmp_path / "back")
    theirs, ours = ({path.name: path.read_bytes() for path in each.iterdir()} for each in (source, tmp_path / "back"))
    assert ours.pop("version") == b"Directory Transport Version: 1.1\n"
    assert ours == theirs


def test_a_copy_that_is_cut_gives_no_name_and_is_taken_up(tmp_path: Path) -> None:
    image = make_image([[file("a")], [file("b")]])
    source, layout = write_dir(tmp_path / "1", image), tmp_path / "layout"
    lost = source / sorted(image.blobs)[0][7:]
    content = lost.read_bytes()
    lost.write_bytes(b"x" + content[1:])
    with pytest.raises(Damaged):
        into_layout(source, layout, "v1")
    assert not (layout / "index.json").exists()
    lost.write_bytes(content)
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / lost.name).write_bytes(b"half")
    assert into_layout(source, layout, "v1") == image.digest
    assert (layout / "blobs/sha256" / lost.name).read_bytes() == content


def test_what_is_no_layout_is_left_alone(tmp_path: Path) -> None:
    source = write_dir(tmp_path / "1", make_image([[file("a")]]))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    with pytest.raises(Invalid, match="an OCI layout"):
        into_layout(source, tmp_path / "mine")
    assert os.listdir(tmp_path / "mine") == ["file"]
    with pytest.raises(CriolloError):
        into_layout(source, tmp_path / "mine/file")


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    source = write_dir(tmp_path / "1", make_image([[file("a")]]))
    (tmp_path / "layout").mkdir()
    fd = os.open(tmp_path / "layout", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(Unavailable, match="another copy"):
            into_layout(source, tmp_path / "layout")
    finally:
        os.close(fd)
    assert into_layout(source, tmp_path / "layout")


@pytest.mark.parametrize(
    "index", ["[]", '{"manifests": 1}', '{"manifests": ["x"]}', "x", json.dumps({"manifests": [{}] * MAX_INDEX_ENTRIES})]
)
def test_an_index_that_is_broken_or_full_is_not_replaced(tmp_path: Path, index: str) -> None:
    source, layout = write_dir(tmp_path / "1", make_image([[file("a")]])), tmp_path / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text("{}")
    (layout / "index.json").write_text(index)
    with pytest.raises(Invalid):
        into_layout(source, layout, "x")
    assert (layout / "index.json").read_text() == index


def test_signatures_have_a_place_in_a_dir_alone(tmp_path: Path) -> None:
    source = write_dir(tmp_path / "1", make_image([[file("a")]]))
    (source / "signature-1").write_bytes(b"one")
    with pytest.raises(Invalid, match="--remove-signatures"):
        into_layout(source, tmp_path / "layout")
    assert not (tmp_path / "layout/blobs").exists()

    async def body() -> None:
        with opened_dir(source) as found:
            async with opened_dir_target(tmp_path / "copy") as written:
                await copy_image(found, written, CopyWish(), Progress("t"))

    asyncio.run(body())
    assert (tmp_path / "copy/signature-1").read_bytes() == b"one"


def test_a_dir_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    image = make_image([[file("a")]])
    source = write_dir(tmp_path / "1", image)
    (source / image.id).unlink()

    async def body(target: Path) -> None:
        with opened_dir(source) as found:
            async with opened_dir_target(target) as written:
                await copy_image(found, written, CopyWish(), Progress("t"))

    with pytest.raises(NotFound, match="blob"):
        asyncio.run(body(tmp_path / "2"))
    assert os.listdir(tmp_path) == ["1"]
    with pytest.raises(Invalid, match="nothing is yet"):
        asyncio.run(body(source))


def test_where_files_cannot_be_nameless_blobs_appear_whole_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = make_image([[file("a")]])
    nothing: Callable[..., None] = lambda *arguments: None  # noqa: E731
    monkeypatch.setattr(copytargets, "open_nameless", nothing)
    layout = tmp_path / "layout"
    into_layout(write_dir(tmp_path / "1", image), layout, "v1")
    assert sorted(os.listdir(layout / "blobs/sha256")) == sorted([image.digest[7:], *(digest[7:] for digest in image.blobs)])


def test_who_leaves_while_a_file_is_begun_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pour(fd: int) -> None:
        pass

    async def main() -> list[str]:
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, copytargets, "_Part", copytargets._put_file(tmp_path / "file", pour))
        return leaks.new_descriptors(before)

    assert asyncio.run(main()) == []
    assert os.listdir(tmp_path) == []


def test_what_a_killed_copy_was_replacing_goes_with_the_next(tmp_path: Path) -> None:
    source, layout = write_dir(tmp_path / "dir", make_image([[file("a", "1")]])), tmp_path / "layout"
    layout.mkdir()
    (layout / ".oci-layout.01234567").touch()  # nothing else is there yet
    into_layout(source, layout)
    for left in (".index.json.01234567", f"blobs/sha256/.{'a' * 64}.01234567", ".mine.01234567"):
        (layout / left).touch()
    into_layout(source, layout)
    assert sorted(os.listdir(layout)) == [".mine.01234567", "blobs", "index.json", "oci-layout"]
    assert [name for name in os.listdir(layout / "blobs/sha256") if name.startswith(".")] == []
