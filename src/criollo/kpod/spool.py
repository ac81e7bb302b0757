"""Standard input as a file that the daemon can read."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click

from criollo.errors import explain


@contextlib.contextmanager
def spooled(stream: IO[bytes], directory: Path, *, wanted: str = "an archive") -> Iterator[Path]:
    """A stream in a file, gone with the block."""
    if stream.isatty():
        raise click.UsageError(f"Nothing to read: name a file, or pipe {wanted} in.")
    with explain(f"write standard input below {directory}"), tempfile.NamedTemporaryFile(dir=directory, prefix="load-") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
        yield Path(file.name)
