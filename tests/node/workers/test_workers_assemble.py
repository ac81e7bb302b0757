"""workers.assemble by the pool: layers that were made by hand, beyond what an unpacked layer can be."""

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from criollo.aio import threads
from criollo.errors import CriolloError
from criollo.workers.messages import Assembled, AssembleJob
from criollo.workers.pool import Workers

pytestmark = pytest.mark.node


def assemble(place: Path, names: Sequence[str], *, link: bool = False) -> Assembled:
    (place / "target").mkdir()

    async def inside() -> Assembled:
        async with Workers() as workers:
            fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (place, place / "target")]
            try:
                return await workers.assemble(fds[0], fds[1], AssembleJob(names=tuple(names), link=link))
            finally:
                for fd in fds:
                    os.close(fd)

    made = asyncio.run(inside())
    threads.close()
    return made


def layer(place: Path, name: str, **files: str) -> Path:
    (place / name).mkdir()
    for path, content in files.items():
        (place / name / path).write_text(content)
    return place / name


@pytest.mark.parametrize("link", [False, True])
def test_files_are_linked_only_when_asked_for(tmp_path: Path, link: bool) -> None:
    layer(tmp_path, "a", f="1")
    assemble(tmp_path, ["a"], link=link)
    assert os.path.samefile(tmp_path / "a/f", tmp_path / "target/f") is link


def test_layers_that_stand_elsewhere_are_copied(tmp_path: Path) -> None:
    layer(tmp_path, "a", f="1")
    assemble(tmp_path, [str(tmp_path / "a")], link=True)
    assert not os.path.samefile(tmp_path / "a/f", tmp_path / "target/f")


def test_whiteouts_take_whole_trees_and_their_attributes(tmp_path: Path) -> None:
    layer(tmp_path, "a")
    (tmp_path / "a/d/e").mkdir(parents=True)
    (tmp_path / "a/d/e/f").touch()
    layer(tmp_path, "b")
    os.mknod(tmp_path / "b/d", stat.S_IFCHR, 0)
    os.mknod(tmp_path / "b/absent", stat.S_IFCHR, 0)
    layer(tmp_path, "c", d="now a file")
    assemble(tmp_path, ["a", "b", "c"])
    assert os.listdir(tmp_path / "target") == ["d"]
    assert (tmp_path / "target/d").read_text() == "now a file"


def test_opaque_marks_hide_and_do_not_travel(tmp_path: Path) -> None:
    layer(tmp_path, "a")
    (tmp_path / "a/d").mkdir()
    (tmp_path / "a/d/old").touch()
    layer(tmp_path, "b")
    (tmp_path / "b/d").mkdir(mode=0o705)
    (tmp_path / "b/d/new").touch()
    os.setxattr(tmp_path / "b/d", "trusted.overlay.opaque", b"y")
    assemble(tmp_path, ["a", "b"])
    assert os.listdir(tmp_path / "target/d") == ["new"]
    assert os.listxattr(tmp_path / "target/d") == []
    assert stat.S_IMODE((tmp_path / "target/d").stat().st_mode) == 0o705


def test_link_whose_first_name_is_hidden_above_keeps_its_content(tmp_path: Path) -> None:
    layer(tmp_path, "a", one="same")
    os.link(tmp_path / "a/one", tmp_path / "a/two")
    layer(tmp_path, "b", one="other")
    assemble(tmp_path, ["a", "b"])
    assert (tmp_path / "target/one").read_text() == "other"
    assert (tmp_path / "target/two").read_text() == "same"


def test_names_of_any_bytes_and_times_before_1970(tmp_path: Path) -> None:
    layer(tmp_path, "a")
    path = os.fsencode(tmp_path / "a") + b"/\xff\n\x01"
    with open(path, "wb") as out:
        out.write(b"x")
    os.utime(path, ns=(-1_500_000_000, -2_250_000_000))
    assemble(tmp_path, ["a"])
    copied = os.fsencode(tmp_path / "target") + b"/\xff\n\x01"
    assert os.stat(copied).st_mtime_ns == -2_250_000_000


def test_what_it_takes_on_the_disk_is_told(tmp_path: Path) -> None:
    layer(tmp_path, "a", small="x", large="y" * (1 << 20))
    made = assemble(tmp_path, ["a"])
    assert made.inodes == 3
    assert 1 << 20 <= made.used_bytes <= (1 << 20) + (64 << 10)


def test_missing_layer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CriolloError, match="open layer absent"):
        assemble(tmp_path, ["absent"])


def test_layer_that_is_a_link_is_refused(tmp_path: Path) -> None:
    layer(tmp_path, "a")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CriolloError, match="open layer b"):
        assemble(tmp_path, ["b"])
