"""Profiles that the settings ask for."""

import asyncio
import http.client
import re
import stat
import tracemalloc
from pathlib import Path

import pytest

from criollo.aio import threads
from criollo.config.profile import Profile
from criollo.daemon import profiling
from criollo.daemon.profiling import profiling_on
from criollo.errors import HostFailed


class _Told:
    def __init__(self) -> None:
        self.url = ""

    def info(self, message: str, *, url: str = "", path: str = "") -> None:
        self.url = url or self.url


def test_files_are_written_at_the_end_for_root_alone(tmp_path: Path) -> None:
    cpu, memory = tmp_path / "cpu", tmp_path / "mem"

    async def main() -> None:
        async with profiling_on(Profile(profile_cpu=str(cpu), profile_mem=str(memory))):
            assert tracemalloc.is_tracing()
            assert cpu.read_text() == ""

    try:
        asyncio.run(main())
    finally:
        tracemalloc.stop()
        threads.close()
    assert cpu.read_text().startswith("# profile by samples: ")
    assert "allocations since the start" in memory.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cpu, memory)] == [0o600, 0o600]


def test_port_is_on_loopback_and_serves_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    told = _Told()
    monkeypatch.setattr(profiling, "log", told)

    def fetch(path: str) -> bytes:
        match = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/debug/pprof/", told.url)
        assert match is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(match[1]), timeout=20)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    async def main() -> bytes:
        async with profiling_on(Profile(profile=True, profile_port=0)):
            return await threads.files(fetch, "/debug/pprof/goroutine")

    try:
        assert b"goroutine thread" in asyncio.run(main())
    finally:
        threads.close()


def test_path_that_cannot_be_written_is_told_before_anything_is_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with profiling_on(Profile(profile_cpu=str(tmp_path / "none" / "cpu"))):
            raise AssertionError("not reached")

    with pytest.raises(HostFailed, match="cannot write a profile to"):
        asyncio.run(main())
