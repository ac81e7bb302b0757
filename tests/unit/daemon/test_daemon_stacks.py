"""Stacks that a signal asks for."""

import asyncio
import stat
from pathlib import Path

import pytest

from criollo.daemon import stacks
from criollo.daemon.stacks import write_stacks


def test_each_asking_writes_a_file_of_its_own_for_root_alone(tmp_path: Path) -> None:
    async def main() -> None:
        write_stacks(tmp_path)
        write_stacks(tmp_path)

    asyncio.run(main())
    files = list(tmp_path.glob("crio-goroutine-stacks-*.log"))
    assert len(files) == 2
    assert all("goroutine task" in file.read_text() for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_place_that_cannot_be_written_is_logged_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Log:
        def error(self, message: str, **_: object) -> None:
            told.append(message)

    monkeypatch.setattr(stacks, "log", Log())

    async def main() -> None:
        write_stacks(tmp_path / "none")

    asyncio.run(main())
    assert told == ["stacks are not written"]
