"""monitor.exits with a process of ours for the monitor: what it wrote, and what a daemon without descriptors makes of it."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks
from support.scarcity import free_descriptors

from criollo.linux import procfs
from criollo.linux.cgroup import Hierarchies
from criollo.monitor.exits import KILLED, MONITOR_LOST, Exit, Watched, wait_exit
from criollo.monitor.oom import Kills

NOWHERE = Hierarchies({}, None)
ID = "ab" * 32


@pytest.fixture
def monitor() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def watched(monitor: "subprocess.Popen[bytes]", place: Path) -> Watched:
    started = procfs.start_time(monitor.pid)
    assert started is not None
    return Watched(ID, place, pid=0, pid_started=0, monitor_pid=monitor.pid, monitor_started=started)


async def exit_of(target: Watched, place: Path) -> Exit:
    return await wait_exit(target, place, NOWHERE, kills=Kills(NOWHERE))


class HastyKills(Kills):
    """Somebody else takes the last descriptor as it is first asked whether there was a kill."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        super().__init__(hierarchies)
        self.asked = 0

    def of(self, bundle: Path, cgroup: str) -> bool:
        self.asked += 1
        if self.asked > 1:
            return super().of(bundle, cgroup)
        with free_descriptors(os.getpid(), 0):
            return super().of(bundle, cgroup)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_the_exit_is_what_the_monitor_wrote(monitor: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    async def body() -> Exit:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(exit_of(watched(monitor, tmp_path), tmp_path))
            await turns()
            assert not waiting.done()
            (tmp_path / ID).write_text("7")
            monitor.kill()
        return waiting.result()

    exit_ = asyncio.run(body())
    assert (exit_.code, exit_.reason) == (7, "")


@pytest.mark.parametrize("content", ["", "x", "7 8", None])
def test_a_monitor_without_a_word_is_lost(monitor: "subprocess.Popen[bytes]", tmp_path: Path, content: str | None) -> None:
    target = watched(monitor, tmp_path)
    if content is not None:
        (tmp_path / ID).write_text(content)
    monitor.kill()
    exit_ = asyncio.run(exit_of(target, tmp_path))
    assert (exit_.code, exit_.reason) == (KILLED, MONITOR_LOST)


@pytest.mark.parametrize("free", [0, 1])
def test_without_a_descriptor_a_living_monitor_is_waited_for(
    monitor: "subprocess.Popen[bytes]", tmp_path: Path, free: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> Exit:
        target = watched(monitor, tmp_path)
        async with asyncio.TaskGroup() as group:
            with free_descriptors(os.getpid(), free):
                waiting = group.create_task(exit_of(target, tmp_path))
                await turns()
            assert not waiting.done()
            (tmp_path / ID).write_text("7")
            monitor.kill()
        return waiting.result()

    descriptors = leaks.descriptors()
    assert asyncio.run(body()).code == 7
    assert leaks.new_descriptors(descriptors) == []


def test_without_a_descriptor_for_it_an_exit_is_read_later(monitor: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    async def body() -> Exit:
        target = watched(monitor, tmp_path)
        (tmp_path / ID).write_text("7")
        monitor.kill()
        os.waitid(os.P_PID, monitor.pid, os.WEXITED | os.WNOWAIT)
        async with asyncio.TaskGroup() as group:
            with free_descriptors(os.getpid(), 0):
                waiting = group.create_task(exit_of(target, tmp_path))
                await turns()
                assert not waiting.done()
        return waiting.result()

    assert asyncio.run(body()).code == 7


@pytest.mark.parametrize(("content", "code"), [("137", 137), (None, KILLED)])
def test_a_kill_that_no_descriptor_was_there_to_see_is_told_later(
    monitor: "subprocess.Popen[bytes]", tmp_path: Path, content: str | None, code: int
) -> None:
    (tmp_path / "memory/c1").mkdir(parents=True)
    (tmp_path / "memory/c1/memory.oom_control").write_text("oom_kill 1\n")
    if content is not None:
        (tmp_path / ID).write_text(content)
    target = watched(monitor, tmp_path)._replace(cgroup="/c1")
    hierarchies = Hierarchies({"memory": tmp_path / "memory"}, None)
    kills = HastyKills(hierarchies)
    monitor.kill()
    descriptors = leaks.descriptors()
    exit_ = asyncio.run(wait_exit(target, tmp_path, hierarchies, kills=kills))
    assert (exit_.code, exit_.oom_killed, kills.asked) == (code, True, 2)
    assert leaks.new_descriptors(descriptors) == []
