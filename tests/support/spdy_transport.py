"""npm's spdy-transport, a SPDY/3.1 that others wrote, as a program: see spdy_peer/peer.js for what it can be asked."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent / "spdy_peer"
DEBIAN = Path("/usr/share/nodejs/spdy-transport")


@functools.cache
def library() -> Path | None:
    """Where the library is: as the lock file pins it, else Debian's; None: it cannot be had on this machine."""
    into = Path(sys.prefix) / "spdy_peer"
    pinned = into / "node_modules/spdy-transport"
    if shutil.which("node") is None:
        return None
    if shutil.which("npm") is not None and not _is_current(into):
        _fetch(into)
    if _is_current(into):
        return pinned
    return DEBIAN if DEBIAN.exists() else None


def _is_current(into: Path) -> bool:
    """Whether all of it is there: npm writes its own list of what it unpacked last."""
    if not (into / "node_modules/.package-lock.json").exists():
        return False
    return (into / "package-lock.json").read_bytes() == (HERE / "package-lock.json").read_bytes()


def _fetch(into: Path) -> None:
    """A registry that is slow or away only costs these tests: they are skipped, where the whole run would end in an error."""
    into.mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, into)
    command = ["npm", "ci", "--prefix", str(into), "--ignore-scripts", "--no-audit", "--no-fund"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=240, check=False)


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """The port of a server on loopback."""
    with _node("serve") as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def asking(port: int, scenario: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A client of the server on `port`; what it finds out is its output."""
    with _node(str(port), scenario) as process:
        yield process


@contextlib.contextmanager
def _node(*words: str) -> Iterator["subprocess.Popen[bytes]"]:
    environment = os.environ | {"SPDY_TRANSPORT": str(library())}
    with subprocess.Popen(
        ["node", str(HERE / "peer.js"), *words], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()
