"""SIGUSR1: what every thread and task is at goes to a file, also when the socket answers nobody any more."""

import os
import tempfile
import time
from pathlib import Path

from criollo.errors import CriolloError, explain
from criollo.telemetry.log import get_logger
from criollo.telemetry.stacks import stacks_text

log = get_logger(__name__)


def write_stacks(directory: Path | None = None) -> None:
    """Write a new file for root alone, named as CRI-O names it, and log where it is. To be called on the loop."""
    name = f"crio-goroutine-stacks-{time.strftime('%Y%m%d%H%M%S')}-{time.monotonic_ns()}.log"
    path = (directory or Path(tempfile.gettempdir())) / name
    try:
        with explain(f"write stacks to {path}"):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w", encoding="utf-8", errors="replace") as file:
                file.write(stacks_text())
    except CriolloError as error:
        log.error("stacks are not written", error=error)
    else:
        log.info("stacks written", path=path)
