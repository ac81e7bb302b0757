"""The first process of a container is read once, and not believed to be there when it is not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.aio import threads
from criollo.containers.processes import FirstProcesses
from criollo.errors import Damaged, Invalid, NotFound
from criollo.oci import runtime_spec


@pytest.fixture(autouse=True)
def no_threads() -> Iterator[None]:
    yield
    threads.close()


def write(path: Path, *args: str) -> Path:
    process = runtime_spec.Process(user=runtime_spec.User(uid=0, gid=0), args=args, cwd="/") if args else None
    path.write_bytes(runtime_spec.encode(runtime_spec.Spec(oci_version="1.0.2", process=process)))
    return path


def of(processes: FirstProcesses, path: Path, name: str = "c") -> runtime_spec.Process:
    return asyncio.run(processes.of(name, path, limit_bytes=1 << 20))


def test_it_is_decoded_once(tmp_path: Path) -> None:
    processes, path = FirstProcesses(), write(tmp_path / "config.json", "sleep")
    assert of(processes, path).args == ("sleep",)
    assert of(processes, path) is of(processes, path)


def test_another_file_is_read_anew(tmp_path: Path) -> None:
    processes, path = FirstProcesses(), write(tmp_path / "config.json", "sleep")
    of(processes, path)
    write(tmp_path / "new.json", "other", "command").rename(path)
    assert of(processes, path).args == ("other", "command")


def test_a_lost_spec_is_told_though_it_was_known(tmp_path: Path) -> None:
    processes, path = FirstProcesses(), write(tmp_path / "config.json", "sleep")
    of(processes, path)
    path.unlink()
    with pytest.raises(NotFound, match="container c has lost it"):
        of(processes, path)


def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    processes, path = FirstProcesses(remembered=2), write(tmp_path / "config.json", "sleep")
    first = of(processes, path, "a")
    of(processes, path, "b")
    assert of(processes, path, "a") is first
    of(processes, path, "c")
    assert of(processes, path, "a") is first
    assert len(processes._known) == 2


def test_what_is_no_spec_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"junk")
    with pytest.raises(NotFound):
        of(FirstProcesses(), path)
    with pytest.raises(Damaged, match="no process"):
        of(FirstProcesses(), write(path))
    path.write_bytes(b" " * (2 << 20))
    with pytest.raises(Invalid):
        of(FirstProcesses(), path)
