"""kpod as a program, beside a running daemon or alone with the same configuration."""

import os
import subprocess
import sys
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
            self._argv(arguments), env=self._environment(), input=stdin, capture_output=True, timeout=120, check=False
        )
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        """A call that goes on; its output is a pipe."""
        return subprocess.Popen(
            self._argv(arguments), env=self._environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _argv(self, arguments: tuple[object, ...]) -> list[str]:
        return [str(KPOD), "-c", str(self.daemon.place / "crio.conf"), "-d", "", *map(str, arguments)]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(self.daemon.place / "registries.conf")}
