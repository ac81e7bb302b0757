"""kpod as a person starts it, against a runtime that only remembers."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kpod_fake import FakeNode, Kpod, Said, serving

from criollo.kpod.main import run


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    made = FakeNode()
    with serving(made, tmp_path / "crio.sock"):
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration file; its socket is served only with the fixture `node`."""
    path = tmp_path / "crio.conf"
    path.write_text(
        f'[crio]\nroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\nlog_dir = "{tmp_path}/logs"\n'
        f'[crio.api]\nlisten = "{tmp_path}/crio.sock"\n'
    )
    return path


@pytest.fixture
def kpod(config: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Kpod]:
    """Calls the console script in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = logging.getLogger("criollo").level

    def call(*arguments: object) -> Said:
        status = run(["-c", str(config), "-d", "", *map(str, arguments)])
        return Said(status, *capfd.readouterr())

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("criollo").setLevel(ours)


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Makes bytes our standard input."""
    kept = os.dup(0)

    def give(content: bytes) -> None:
        (tmp_path / "stdin").write_bytes(content)
        with open(tmp_path / "stdin", "rb") as file:
            os.dup2(file.fileno(), 0)

    yield give
    os.dup2(kept, 0)
    os.close(kept)
