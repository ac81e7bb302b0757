"""Children: their output, their limits, and that nothing of them stays."""

import asyncio
import errno
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import leaks

from criollo.aio import process
from criollo.errors import Exhausted, HostFailed, TimedOut, ToolFailed
from criollo.linux import proctree


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No child, zombie or descriptor more than before."""
    asyncio.run(process.run(process.Program(["true"]), what="warm up", timeout_s=60))
    before, children = leaks.descriptors(), set(proctree.children(os.getpid()))
    yield
    assert set(proctree.children(os.getpid())) <= children
    assert leaks.new_descriptors(before) == []


def run(script: str, *, timeout_s: float = 60, **options: Any) -> process.Finished:
    return asyncio.run(process.run(process.Program(["sh", "-c", script]), what="try it", timeout_s=timeout_s, **options))


def overdue(script: str, word: str) -> str:
    """The error of a script that hangs once it has said `word`."""
    for limit_s in (0.3, 3, 30):  # the first that is enough to get so far
        with pytest.raises(TimedOut) as caught:
            run(script, timeout_s=limit_s)
        if word in str(caught.value):
            break
    return str(caught.value)


def attempt(script: str) -> process.Finished:
    return asyncio.run(process.attempt(process.Program(["sh", "-c", script]), what="try it", timeout_s=60))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.01)


def test_output_and_status_are_told() -> None:
    assert attempt("echo out; echo err >&2; exit 3") == process.Finished(3, b"out\n", b"err\n")


def test_a_signal_is_a_negative_status() -> None:
    assert attempt("kill -9 $$").status == -signal.SIGKILL


def test_a_failure_is_told_with_its_last_words() -> None:
    with pytest.raises(ToolFailed, match=r"try it: sh failed \(exit status 3\): oh no"):
        run("echo oh no >&2; exit 3")


def test_a_missing_program_is_named() -> None:
    with pytest.raises(HostFailed, match="cannot start /no/such"):
        asyncio.run(process.run(process.Program(["/no/such"]), what="try it", timeout_s=1))


@pytest.mark.parametrize("size", [0, 1, 65536, 1 << 20])
def test_input_of_any_size_arrives_while_output_leaves(size: int) -> None:
    assert run("cat", stdin=b"x" * size).stdout == b"x" * size


def test_a_program_that_reads_no_input_is_not_waited_for() -> None:
    assert run("exec true", stdin=b"x" * (1 << 20)).status == 0


def test_output_beyond_the_limit_is_dropped() -> None:
    finished = run("head -c 5000000 /dev/zero; echo end >&2", limit_bytes=1000)
    assert (len(finished.stdout), finished.stderr) == (1000, b"end\n")


def test_a_program_that_hangs_is_killed_with_its_group(tmp_path: Path) -> None:
    said = overdue(f"sleep 1000 & echo $! > {tmp_path}/pid; echo waiting >&2; sleep 1000", "waiting")
    assert re.search(r"still running after [\d.]+ s, killed; it said: 'waiting'", said)
    until_gone(int((tmp_path / "pid").read_text()))


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us() -> None:
    finished = run("sleep 1000 & echo $!")
    os.kill(int(finished.stdout), signal.SIGKILL)


@pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
def test_cancelling_leaves_nothing(turns: int) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(process.run(process.Program(["sleep", "1000"]), what="try it", timeout_s=1000))
            for _ in range(turns):
                await asyncio.sleep(0.001)
            task.cancel()
        assert task.cancelled()

    asyncio.run(main())


def test_the_environment_is_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    names = {line.split(b"=")[0] for line in run("env").stdout.splitlines()}
    assert names - {b"PWD", b"SHLVL", b"_"} == {b"PATH", b"LC_ALL"}


def test_no_descriptor_is_handed_on_but_those_stated() -> None:
    read, write = os.pipe()
    try:
        argv = ["sh", "-c", f"ls /proc/$$/fd; echo hello > /proc/self/fd/{write}"]
        finished = asyncio.run(process.run(process.Program(argv, pass_fds=[write]), what="try it", timeout_s=60))
        assert os.read(read, 100) == b"hello\n"
    finally:
        os.close(read)
        os.close(write)
    own = {b"10", b"255"}  # where shells keep their scripts
    assert set(finished.stdout.split()) - own - {str(write).encode()} == {b"0", b"1", b"2"}


def test_the_end_of_another_process_is_noticed() -> None:
    async def main() -> int | None:
        child = process.spawn(process.Program(["sh", "-c", "exit 7"]))
        fd = os.pidfd_open(child.pid)
        process.disown(child)
        try:
            async with asyncio.timeout(60):
                await process.wait_pidfd(fd)
            assert process.has_ended(fd)
            return process.reap(fd)
        finally:
            os.close(fd)

    assert asyncio.run(main()) == 7


@pytest.mark.parametrize("script", ["echo --password=hunter2 >&2; exit 1", "echo --password=hunter2; exit 1"])
def test_secrets_in_a_programs_last_words_stay_there(script: str) -> None:
    with pytest.raises(ToolFailed, match=r"--password=\*\*\*") as caught:
        run(script)
    assert "hunter2" not in str(caught.value)


def test_secrets_in_the_last_words_of_a_program_that_hangs_stay_there() -> None:
    said = overdue("echo --password=hunter2 >&2; sleep 1000", "--password")
    assert "--password=***" in said
    assert "hunter2" not in said


def test_last_words_are_cut_after_secrets_have_gone_not_through_one() -> None:
    long = b"token=" + b"s3cret" * 400 + b"\nend"
    assert process.last_words(long) == "token=***\nend"
    assert len(process.last_words(b"x" * (1 << 20))) == process.TAIL_BYTES


def test_without_a_descriptor_to_wait_with_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        child = await process._start(process.Program(["true"]))
        with monkeypatch.context() as patched:
            patched.setattr(os, "pidfd_open", none_left)
            with pytest.raises(Exhausted, match="cannot wait for process"):
                await process.wait(child)
        await process._discard(child)

    asyncio.run(main())
