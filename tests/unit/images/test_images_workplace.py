"""Where results are made: whole or not there, and what a killed process leaves is swept by the next."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from criollo.aio import threads
from criollo.errors import CriolloError, Invalid
from criollo.images import workplace as module
from criollo.images.workplace import anonymous, new_file, open_nameless, publish, workplace

HOLDING = """
import asyncio, sys
from pathlib import Path
from criollo.images.workplace import workplace
async def main():
    async with workplace(Path(sys.argv[1]), "out") as work:
        (work / "half").write_bytes(b"x")
        print("ready", flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        try:
            await body()
        finally:
            threads.close()

    asyncio.run(main())


def holding(parent: Path) -> "subprocess.Popen[bytes]":
    """Another process that works there."""
    argv = [sys.executable, "-c", HOLDING, str(parent)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    (tmp_path / ".out.0123456789.kpod").mkdir()  # not ours: another number of digits
    with holding(tmp_path) as dead, holding(tmp_path) as living:
        dead.kill()
        dead.wait()
        assert len(os.listdir(tmp_path)) == 3

        async def body() -> None:
            async with workplace(tmp_path, "other"):
                assert len(os.listdir(tmp_path)) == 4
            async with workplace(tmp_path, "out") as work:
                assert os.listdir(work) == []
                assert len(os.listdir(tmp_path)) == 3

        run(body)
        assert len(os.listdir(tmp_path)) == 2
        living.communicate(b"")
    assert os.listdir(tmp_path) == [".out.0123456789.kpod"]


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        async with workplace(tmp_path, "n" * 300) as work:
            (work / "half").mkdir()
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - ours
        run(body)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("nameless", [True, False])
def test_what_appeared_while_it_was_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool
) -> None:
    if not nameless:
        nothing: Callable[..., None] = lambda *_: None  # noqa: E731
        monkeypatch.setattr(module, "open_nameless", nothing)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # it was not there yet

    async def body() -> None:
        async with new_file(tmp_path / "out"):
            (tmp_path / "out").write_bytes(b"another's")

    with pytest.raises(Invalid, match="nothing is yet"):
        run(body)
    assert (tmp_path / "out").read_bytes() == b"another's"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_system_that_cannot_refuse_a_taken_name_takes_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(module.libc, "rename_noreplace", refuse)
    (tmp_path / "made").write_bytes(b"whole")
    module.move(tmp_path / "made", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["out"]


def test_a_link_of_that_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (tmp_path / ".out.01234567.kpod").symlink_to("precious")

    async def body() -> None:
        async with workplace(tmp_path, "out"):
            pass

    run(body)
    assert (tmp_path / "precious/file").exists()


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def body() -> None:
        async with workplace(tmp_path / "none", "out"):
            pass

    with pytest.raises(CriolloError, match="none"):
        run(body)
    with pytest.raises(CriolloError):
        anonymous(tmp_path / "none")
    with pytest.raises(CriolloError):
        open_nameless(tmp_path / "none")


def test_a_nameless_file_gets_its_name_once(tmp_path: Path) -> None:
    fd = open_nameless(tmp_path, 0o644)
    if fd is None:
        pytest.skip("this filesystem has no files without a name")
    os.write(fd, b"whole")
    assert os.listdir(tmp_path) == []
    publish(fd, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"whole"
    with pytest.raises(Invalid, match="nothing is yet"):
        publish(fd, tmp_path / "out")
    os.close(fd)


def test_a_new_file_is_closed_whose_caller_is_cancelled_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(directory: Path, mode: int) -> int | None:
        fd = open_nameless(directory, mode)
        loop.call_soon_threadsafe(task.cancel)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(30)  # it has heard
        return fd

    async def body() -> None:
        nonlocal loop, task
        loop, current = asyncio.get_running_loop(), asyncio.current_task()
        assert current is not None
        task = current
        with pytest.raises(asyncio.CancelledError):
            async with new_file(tmp_path / "out"):
                pass

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]
    monkeypatch.setattr(module, "open_nameless", opened)
    run(body)
    ours = [path for path in map(_target, os.listdir("/proc/self/fd")) if path.startswith(f"{tmp_path}/")]
    assert ours == os.listdir(tmp_path) == []


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:  # of the listing itself
        return ""
