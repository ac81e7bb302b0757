"""storage.layers and storage.trash without a kernel's help: names, staging, commit, removal, what a restart finds."""

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.waiting import until

from criollo.aio import threads
from criollo.errors import Exhausted, Invalid
from criollo.oci.digest import Digest
from criollo.storage import trash
from criollo.storage.layers import EMPTY, Layers, layer_name

NAME = "0123456789abcdef" * 2
OTHER = "f" * 32


def run(root: Path, body: Callable[[Layers], Coroutine[object, object, None]]) -> None:
    async def inside() -> None:
        layers = Layers(root)
        await layers.open()
        try:
            await body(layers)
        finally:
            layers.close()

    try:
        asyncio.run(inside())
    finally:
        threads.close()


async def add(layers: Layers, name: str, *files: str) -> None:
    staging = await layers.stage()
    for file in files:
        path = staging.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file)
    await layers.commit(staging, name)


def test_name_is_short_and_of_the_chain() -> None:
    assert layer_name(Digest("sha256:" + "0123456789abcdef" * 4)) == NAME


def test_committed_layer_is_there(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        assert not layers.has(NAME)
        await add(layers, NAME, "f")
        assert layers.has(NAME)
        assert layers.names() == {NAME}
        assert (layers.path(NAME) / "f").read_text() == "f"
        await layers.sync()

    run(tmp_path, body)
    assert list((tmp_path / "staging").iterdir()) == []


def test_staging_has_the_mode_of_a_root_whatever_the_umask(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        before = os.umask(0o077)
        try:
            staging = await layers.stage()
        finally:
            os.umask(before)
        assert stat.S_IMODE(os.fstat(staging.fd).st_mode) == 0o755
        await layers.discard(staging)
        await layers.discard(staging)
        assert not staging.path.exists()

    run(tmp_path, body)


def test_second_commit_of_a_name_keeps_the_first(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        await add(layers, NAME, "first")
        await add(layers, NAME, "second")
        assert os.listdir(layers.path(NAME)) == ["first"]

    run(tmp_path, body)
    assert list((tmp_path / "staging").iterdir()) == []


def test_removed_layer_is_gone_at_once_and_its_files_later(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        await add(layers, NAME, "a/b/c", "d")
        await layers.remove(NAME)
        await layers.remove(NAME)
        assert layers.names() == set()
        assert len(os.listdir(layers.trash.path)) == 1
        await layers.trash.empty()
        assert os.listdir(layers.trash.path) == []

    run(tmp_path, body)


def test_open_takes_away_what_a_cut_run_left(tmp_path: Path) -> None:
    async def cut(layers: Layers) -> None:
        staging = await layers.stage()
        (staging.path / "half").touch()
        os.close(staging.fd)
        await add(layers, NAME)

    async def again(layers: Layers) -> None:
        assert layers.names() == {NAME}
        assert os.listdir(tmp_path / "staging") == []
        await layers.trash.empty()
        assert os.listdir(tmp_path / "trash") == []

    run(tmp_path, cut)
    run(tmp_path, again)


def test_open_closes_directories_to_others(tmp_path: Path) -> None:
    for name in ("layers", "staging", "trash"):
        (tmp_path / name).mkdir(mode=0o755)

    async def body(layers: Layers) -> None:
        assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("layers", "staging", "trash")} == {0o700}

    run(tmp_path, body)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", NAME[:-1], NAME + "0", NAME.upper(), NAME[:-1] + "\n", "staging"])
def test_only_names_of_layers_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        Layers(tmp_path).path(name)


def test_layer_of_an_image_without_layers(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        assert layers.has(EMPTY)
        assert layers.names() == set()

    run(tmp_path, body)


def test_implied_directories_take_after_the_layers_below(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        await add(layers, NAME, "tmp/x", "opt/deep/y")
        (layers.path(NAME) / "tmp").chmod(0o1777)
        os.utime(layers.path(NAME) / "tmp", ns=(5, 5))
        layers.path(NAME).chmod(0o711)
        await add(layers, OTHER, "opt/z")
        (layers.path(OTHER) / "opt").chmod(0o750)
        top = "a" * 32
        staging = await layers.stage()
        for name in ("tmp", "opt/deep", "new"):
            (staging.path / name).mkdir(parents=True)
        (staging.path / "link").symlink_to("tmp")
        implied = ("", "tmp", "opt", "opt/deep", "new", "link", "gone", "../../../x")
        await layers.commit(staging, top)
        await layers.inherit(layers.path(top), implied, [NAME, OTHER])
        modes = {name: stat.S_IMODE((layers.path(top) / name).stat().st_mode) for name in ("tmp", "opt", "opt/deep", "new")}
        assert modes == {"tmp": 0o1777, "opt": 0o750, "opt/deep": 0o755, "new": 0o755}
        assert (layers.path(top) / "tmp").stat().st_mtime_ns == 5
        assert stat.S_IMODE(layers.path(top).stat().st_mode) == 0o755  # that of the topmost layer below

    run(tmp_path, body)


def test_trash_task_empties_what_is_put_in(tmp_path: Path) -> None:
    async def body(layers: Layers) -> None:
        async def watch() -> None:
            while os.listdir(layers.trash.path):
                await asyncio.sleep(0.005)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(layers.trash.run())
            for number in range(5):
                await add(layers, NAME, *(f"{number}/{each}" for each in range(50)))
                await layers.remove(NAME)
            async with asyncio.timeout(60):
                await watch()
            task.cancel()

    run(tmp_path, body)


def test_a_staging_directory_that_cannot_be_opened_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.open

    def refuse(path: Any, *args: Any, **more: Any) -> int:
        if (tmp_path / "staging") == Path(os.fsdecode(path)).parent:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(path, *args, **more)

    async def body(layers: Layers) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", refuse)
            with pytest.raises(Exhausted):
                await layers.stage()
        assert os.listdir(tmp_path / "staging") == []

    run(tmp_path, body)


def test_a_trash_that_cannot_be_opened_is_emptied_with_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    really, refused = os.open, []

    def refuse_once(path: Any, *args: Any, **more: Any) -> int:
        if path == tmp_path / "trash" and not refused:
            refused.append(path)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(path, *args, **more)

    async def body(layers: Layers) -> None:
        monkeypatch.setattr(os, "open", refuse_once)
        await add(layers, NAME, "file")
        await layers.remove(NAME)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(layers.trash.run())
            await until(lambda: refused)
            layers.trash.wake()
            await until(lambda: not os.listdir(layers.trash.path))
            task.cancel()

    run(tmp_path, body)
    assert "cannot empty the trash now" in caplog.text


@pytest.mark.parametrize("within", [False, True])
def test_what_no_descriptor_is_there_for_is_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    """Whether it is the trash that cannot be opened, or a tree in it; nobody has to put in more."""
    really, refused = os.open, []

    def refuse_twice(path: Any, *args: Any, **more: Any) -> int:
        is_met = "dir_fd" in more if within else path == tmp_path / "trash"
        if is_met and len(refused) < 2:
            refused.append(path)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return really(path, *args, **more)

    async def body(layers: Layers) -> None:
        await add(layers, NAME, "file")
        await layers.remove(NAME)
        monkeypatch.setattr(trash, "RETRY_S", 0.01)
        monkeypatch.setattr(os, "open", refuse_twice)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(layers.trash.run())
            await until(lambda: not os.listdir(layers.trash.path))
            task.cancel()
        assert len(refused) == 2

    run(tmp_path, body)
