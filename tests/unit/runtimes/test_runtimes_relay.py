"""A runtime that passes the command's output on itself, as runc does, and is slow at it: what it has at hand is waited for."""

import sys
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.waiting import cancelled_within, run

from criollo.aio.streams import Streams
from criollo.runtimes.base import ExecRequest
from criollo.runtimes.exec import Command, exec_stream
from criollo.runtimes.execsync import Run, exec_sync
from criollo.runtimes.sealed import CommandLine

SLOW = """
import sys, time
(log,) = (word.partition("=")[2] for word in sys.argv if word.startswith("--log="))
with open(log, "w") as told:
    print('{"level":"debug","msg":"process exited","pid":7,"status":6}', file=told)
begun = time.process_time()
while time.process_time() < begun + 0.5:
    pass
print("late", flush=True)
time.sleep(1000)  # until somebody whom the command left behind closes its output
"""


class Sink:
    content = b""

    async def write(self, data: bytes) -> None:
        self.content += data

    async def close(self) -> None:
        pass


@pytest.fixture
def runtime(tmp_path: Path) -> CommandLine:
    program = tmp_path / "runtime"
    program.write_text(SLOW)
    return CommandLine(sys.executable, "-I", str(program))


def request(tmp_path: Path) -> ExecRequest:
    return ExecRequest(container_id="c", bundle=tmp_path, process=b"{}", command=("true",))


def test_output_of_an_exec_sync_that_the_runtime_still_has_is_waited_for(runtime: CommandLine, tmp_path: Path) -> None:
    asked = request(tmp_path)
    result = run(exec_sync(Run(runtime, asked, relays=True), asked))
    assert (result.stdout, result.exit_code) == (b"late\n", 6)


def test_output_of_an_exec_that_the_runtime_still_has_is_waited_for(runtime: CommandLine, tmp_path: Path) -> None:
    out = Sink()
    assert run(exec_stream(runtime, request(tmp_path), Streams(stdout=out), relays=True)) == 6
    assert out.content == b"late\n"


@pytest.mark.parametrize("is_sync", [True, False])
def test_an_exec_that_is_cancelled_while_it_ends_keeps_no_descriptor(
    runtime: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sync: bool
) -> None:
    asked = request(tmp_path)

    async def main() -> list[str]:
        before = leaks.descriptors()
        if is_sync:
            work: Any = exec_sync(Run(runtime, asked, relays=True), asked)
        else:
            work = exec_stream(runtime, asked, Streams(stdout=Sink()), relays=True)
        await cancelled_within(monkeypatch, Command, "_kill", work)
        return leaks.new_descriptors(before)

    assert run(main()) == []
