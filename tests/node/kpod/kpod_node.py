"""kpod as a program, beside a running daemon or alone with the same configuration."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.daemon import Daemon

KPOD = Path(sys.executable).parent / "kpod"


class Said(NamedTuple):
    status: int
    out: str
    err: str


class Kpod:
    """Calls kpod on a node; `image` is a reference that its registry has."""

    def __init__(self, daemon: Daemon, image: str) -> None:
        self.daemon, self.image = daemon, image

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Said:
        done = subprocess.run(
            self.argv(*arguments), env=self.environment(), input=stdin, capture_output=True, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextlib.contextmanager
    def start(self, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
        """A call that goes on beside the block; its output is a pipe. It is ended with the block if it has not ended itself."""
        pipe, environment = subprocess.PIPE, self.environment()
        with subprocess.Popen(self.argv(*arguments), env=environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.communicate(timeout=60)

    def argv(self, *arguments: object) -> list[str]:
        return [str(KPOD), "-c", str(self.daemon.place / "crio.conf"), "-d", "", *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.daemon.registries}
