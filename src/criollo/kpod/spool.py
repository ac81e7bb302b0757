"""A file for the daemon to read: one that is named, or standard input, which waits in a file below a locked directory.

What a killed kpod leaves of that is swept.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import click

from criollo.aio import threads
from criollo.errors import Invalid, NotFound, explain
from criollo.images.workplace import workplace
from criollo.kpod.ends import INPUT, standard_input
from criollo.linux import files

NAME: Final = "load"


def named(source: str, kind: str) -> Path:
    """The path of a file on the command line. Raises Invalid, NotFound, HostFailed: it is not there, or cannot be looked at."""
    if not source:
        raise Invalid("path", source, f"the {kind}")
    path = Path(source).absolute()
    with explain(f"read {source}"):
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(kind, source) from None
    return path


@contextlib.asynccontextmanager
async def spooled(directory: Path, *, wanted: str = "an archive") -> AsyncIterator[Path]:
    """Standard input in a file, gone with the block."""
    if os.isatty(INPUT):
        raise click.UsageError(f"Nothing to read: name a file, or pipe {wanted} in.")
    async with workplace(directory, NAME) as work:
        fd = os.open(work / "input", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async with standard_input() as reader:
                while piece := await reader.read():
                    await threads.files(_write, fd, piece)
        finally:
            os.close(fd)
        yield work / "input"


def _write(fd: int, content: bytes) -> None:
    with explain("write standard input to a file"):
        files.write_all(fd, content)
