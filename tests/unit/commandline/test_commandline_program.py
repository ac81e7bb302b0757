"""What a person sees of a call that went wrong: one line, its place in the help, and an exit status."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from criollo.commandline import program
from criollo.errors import NotFound


def tool(work: Callable[[], object]) -> click.Group:
    @click.group(cls=program.VerbGroup, context_settings=program.CONTEXT)
    def command() -> None: ...

    @command.command("pull")
    @click.option("--quiet", is_flag=True)
    @click.argument("image")
    def pull(quiet: bool, image: str) -> object:
        return work()

    @command.group("registry", cls=program.VerbGroup)
    def registry() -> None: ...

    @registry.command("explain")
    def explain() -> object:
        return work()

    return command


def call(*arguments: str, work: Callable[[], object] = lambda: None) -> int:
    return program.run(lambda: tool(work), "tool", arguments)


def raising(error: BaseException) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "--bogus"], "No such option '--bogus'. See 'tool pull --help'."),
        (["pull", "--quit", "x"], "No such option '--quit'. Did you mean '--quiet'? See 'tool pull --help'."),
        (["pull"], "Missing argument 'IMAGE'. See 'tool pull --help'."),
        (["pull", "a", "b"], "Got unexpected extra argument (b). See 'tool pull --help'."),
        (["pull", "a", "\x1b[31m"], "Got unexpected extra argument (\\x1b[31m). See 'tool pull --help'."),
        (["registry", "explain", "--x"], "No such option '--x'. See 'tool registry explain --help'."),
        (["registry", "expxlain"], "No such command 'expxlain'. Did you mean 'explain'? See 'tool registry --help'."),
        (["pul"], "No such command 'pul'. Did you mean 'pull'? See 'tool --help'."),
        (["frob"], "No such command 'frob'. See 'tool --help'."),
        (["--frob"], "No such option '--frob'. See 'tool --help'."),
        ([""], "No such command ''. See 'tool --help'."),
    ],
)
def test_a_senseless_call_is_one_line_that_points_to_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert call(*arguments) == 2
    assert capsys.readouterr() == ("", f"tool: {said}\n")


@pytest.mark.parametrize("verb", [["pull", "x"], ["registry", "explain"]])
def test_a_complaint_of_a_verb_points_to_its_help(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert call(*verb, work=raising(click.UsageError("--a and --b are alternatives."))) == 2
    path = "tool pull" if verb[0] == "pull" else "tool registry explain"
    assert capsys.readouterr().err == f"tool: --a and --b are alternatives. See '{path} --help'.\n"


def test_a_group_without_a_verb_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["registry"]):
        assert call(*arguments) == 2
        assert capsys.readouterr().err.startswith("Usage: tool")


def test_a_long_word_is_compared_and_shown_in_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("x" * 100_000) == 2
    assert len(capsys.readouterr().err) < 3000


def test_an_error_of_ours_is_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("pull", "x", work=raising(NotFound("image", "a\nb", "see \x1b[31m"))) == 1
    assert capsys.readouterr().err == "tool: image a\\nb not found: see \\x1b[31m\n"


def test_an_argument_that_is_no_text_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("pull", "x", work=lambda: "a/b\udcff".encode()) == 1
    assert capsys.readouterr().err == "tool: cannot take 'a/b\\udcff': it is no UTF-8; write it in UTF-8\n"
    with pytest.raises(UnicodeEncodeError):
        call("pull", "x", work=lambda: "…".encode("ascii"))


def test_a_current_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code = "import os, sys, click; from criollo.commandline import program\n"
    code += "tool = click.Command('tool', callback=lambda: os.path.abspath('x'))\n"
    code += "sys.exit(program.run(lambda: tool, 'tool', []))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "tool: the current directory is gone: change to another\n")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interrupt_is_130(error: BaseException) -> None:
    assert call("pull", "x", work=raising(error)) == 130


@pytest.mark.parametrize(("result", "status"), [(None, 0), (3, 3), (lambda: 4, 4), ("text", 0)])
def test_the_status_is_what_the_verb_gives_or_what_its_result_gives_when_called(result: object, status: int) -> None:
    assert call("pull", "x", work=lambda: result) == status


def test_an_error_of_what_a_verb_left_to_do_is_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("pull", "x", work=lambda: raising(NotFound("image", "a"))) == 1
    assert capsys.readouterr().err == "tool: image a not found\n"


def test_an_error_of_the_kernel_that_is_not_the_output_is_not_hidden() -> None:
    with pytest.raises(FileNotFoundError):
        call("pull", "x", work=raising(FileNotFoundError(errno.ENOENT, "no such file", "/x")))
    with pytest.raises(OSError, match="no space"):
        call("pull", "x", work=lambda: raising(OSError(errno.ENOSPC, "no space")))  # of what was left to do: no output of ours
    with pytest.raises(OSError, match="input/output"):
        call("pull", "x", work=raising(OSError(errno.EIO, "input/output", "/x")))


PRINTING = """
import sys, click
from criollo.commandline import program
@click.command()
def tool():
    click.echo("x" * 100_000 + "\\udcff\\u2026")
sys.exit(program.run(lambda: tool, "tool", []))
"""


def printed_to(output: int, **environment: str) -> tuple[int, str]:
    """Exit status and errors of a program that prints much."""
    done = subprocess.run(
        [sys.executable, "-c", PRINTING],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )
    return done.returncode, done.stderr


def test_a_full_disk_behind_the_output_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        assert printed_to(full.fileno()) == (1, "tool: cannot write the output: No space left on device\n")


def test_a_reader_that_has_gone_needs_no_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert printed_to(writer) == (1, "")
    finally:
        os.close(writer)


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    assert printed_to(subprocess.DEVNULL, PYTHONIOENCODING="ascii:strict") == (0, "")
    assert printed_to(subprocess.DEVNULL) == (0, "")


def test_closed_streams_are_empty_and_nobody_else_gets_their_numbers() -> None:
    code = (
        "import os, sys, click; from criollo.commandline import program\n"
        "def look():\n"
        "    sys.stdout.buffer.write(b'x'); click.echo('said'); click.echo('said', err=True)\n"
        "    return 7 if [os.readlink(f'/proc/self/fd/{n}') for n in range(3)] == ['/dev/null'] * 3 else 8\n"
        "sys.exit(program.run(lambda: click.Command('tool', callback=look), 'tool', []))\n"
    )
    closing = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", closing, "sh", sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 7
