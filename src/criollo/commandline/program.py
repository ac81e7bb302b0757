"""A program of verbs as it is called: errors are one line on stderr, and the exit status says what kind it was.

Exit status: that of the verb, 1 for an error of ours, 2 for a command line that makes no sense, 130 for an interrupt.
"""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from criollo.errors import CriolloError, printable

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
# What a write to standard output answers that cannot be done, or is not wanted any more.
_OUTPUT: Final = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class VerbGroup(click.Group):
    """Verbs, or verbs of a verb: one that is not there is named with its likes, and a verb's complaint points to its help."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(f"No such command {args[0]!r}.{_likes(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is None and ctx.invoked_subcommand is not None:
                error.ctx = click.Context(self, parent=ctx, info_name=ctx.invoked_subcommand)
            raise


def run(command: Callable[[], click.Command], program: str, argv: Sequence[str] | None = None) -> int:
    """Call a program, with the arguments of the process if none are given; returns the exit status.

    A verb that gives a function has it called when `command`, which may be large, is gone.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: else a socket would get its number, and what we print
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - for as long as we run
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # names may hold what a terminal's encoding has not
    try:
        arguments = list(sys.argv[1:] if argv is None else argv)
        status = _told(program, lambda: command().main(arguments, prog_name=program, standalone_mode=False))
    except OSError as error:
        if error.errno not in _OUTPUT or error.filename is not None:
            raise
        # What is left in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # else whoever read it has gone, and knows
            click.echo(f"{program}: cannot write the output: {os.strerror(error.errno)}", err=True)
        return 1
    if callable(status):
        status = _told(program, status)
    return status if isinstance(status, int) else 0


def _told(program: str, work: Callable[[], object]) -> object:
    """What `work` gives, or the exit status of its error, which a person has been told."""
    try:
        return work()
    except CriolloError as error:
        click.echo(f"{program}: {printable(str(error))}", err=True)
        return 1
    except FileNotFoundError as error:
        if error.filename is not None or _has_directory():
            raise
        click.echo(f"{program}: the current directory is gone: change to another", err=True)
        return 1
    except UnicodeEncodeError as error:
        if not any("\udc80" <= character <= "\udcff" for character in error.object):  # as Python reads arguments of other bytes
            raise
        click.echo(f"{program}: cannot take {printable(repr(error.object))}: it is no UTF-8; write it in UTF-8", err=True)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        said = printable(error.format_message()).rstrip(".")
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else program
        click.echo(f"{program}: {said}{'' if said.endswith(('?', '?)')) else '.'} See '{path} --help'.", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130


def _has_directory() -> bool:
    """Whether names are relative to anything."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _likes(word: str, known: Sequence[str]) -> str:
    import difflib  # a quarter of a MiB that only a misspelt word needs

    likes = difflib.get_close_matches(word[:64], known)
    return f" Did you mean {' or '.join(map(repr, likes))}?" if likes else ""
