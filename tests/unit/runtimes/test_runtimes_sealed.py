"""Sealed copies of runtime programs."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import leaks

from criollo.aio import process
from criollo.runtimes.sealed import CommandLine, SealedProgram


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return Path(shutil.copy("/bin/echo", tmp_path / "crun"))


@pytest.fixture
def sealed(program: Path) -> Iterator[SealedProgram]:
    made = SealedProgram(program)
    yield made
    made.close()


def said_by(path: str | None) -> str:
    assert path is not None
    return subprocess.run([path, "hello"], capture_output=True, text=True, check=True).stdout


def test_copy_runs_without_the_file(sealed: SealedProgram, program: Path) -> None:
    path = sealed.path()
    program.unlink()
    assert said_by(path) == "hello\n"


def test_copy_cannot_be_changed(sealed: SealedProgram) -> None:
    shared = sealed.path()
    assert shared is not None
    fd = os.open(shared, os.O_RDWR)
    try:
        for change in (lambda: os.write(fd, b"x"), lambda: os.truncate(fd, 0), lambda: os.truncate(fd, 1 << 20)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)
    assert said_by(shared) == "hello\n"


def test_copy_that_somebody_holds_open_for_writing_keeps_nobody_from_running_the_program(
    sealed: SealedProgram, program: Path
) -> None:
    shared = sealed.path()
    assert shared is not None
    held = os.open(shared, os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Text file busy"):
            said_by(shared)
        ran = asyncio.run(process.run(process.Program([str(program), "hello"], executable=shared), what="greet", timeout_s=10))
        assert ran.stdout == b"hello\n"
    finally:
        os.close(held)


def test_program_is_copied_once(sealed: SealedProgram) -> None:
    first = sealed.path()
    held = leaks.descriptors()
    assert sealed.path() == first
    assert leaks.new_descriptors(held) == []


def test_replaced_program_is_copied_anew(sealed: SealedProgram, program: Path, tmp_path: Path) -> None:
    first = sealed.path()
    Path(shutil.copy("/bin/true", tmp_path / "newer")).replace(program)
    assert said_by(sealed.path()) == ""
    assert said_by(first) == "hello\n"


def test_script_is_run_from_its_file(sealed: SealedProgram, program: Path) -> None:
    program.unlink()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert sealed.path() is None


def test_missing_program_is_left_to_who_starts_it(tmp_path: Path) -> None:
    assert SealedProgram(tmp_path / "nosuch").path() is None


def test_close_leaves_nothing_and_may_be_repeated(program: Path) -> None:
    held = leaks.descriptors()
    sealed = SealedProgram(program)
    first = sealed.path()
    sealed.close()
    sealed.close()
    assert leaks.new_descriptors(held) == []
    assert first is not None
    assert said_by(sealed.path()) == "hello\n"
    sealed.close()


def test_command_line_is_words_and_what_to_execute() -> None:
    line = CommandLine("/bin/crun", "--root=/r", executable="/proc/1/fd/2")
    assert [*line, "state"] == ["/bin/crun", "--root=/r", "state"]
    assert (line.executable, CommandLine("x").executable) == ("/proc/1/fd/2", None)
