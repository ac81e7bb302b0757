"""kubectl, as users have it: Debian 12's speaks SPDY, Debian 13's WebSocket first. Both are laid out by scripts/setup.sh.

kubectl = Kubectl(program, server.url, tmp_path)
kubectl("exec", "web", "--", "true").returncode
with kubectl.terminal("exec", "-it", "web", "--", "sh") as terminal: ...
"""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUITES = {"spdy": "bookworm", "websocket": "trixie"}


def program(kind: str) -> Path | None:
    """Where the kubectl that speaks this is, or None when setup could not fetch it."""
    path = Path(sys.prefix) / "kubectl" / SUITES[kind] / "kubectl"
    return path if os.access(path, os.X_OK) else None


class Kubectl:
    """Runs one kubectl against one server, with a home directory of its own."""

    def __init__(self, path: Path, url: str, home: Path) -> None:
        self._argv = [str(path), "--server", url, "--cache-dir", str(home / "cache"), "--kubeconfig", "/dev/null"]
        self._home = home

    def __call__(self, *words: str, stdin: bytes | None = None, limit_s: float = 120) -> "subprocess.CompletedProcess[bytes]":
        """Run it to its end; without `stdin` it has /dev/null."""
        given: dict[str, Any] = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [*self._argv, *words], capture_output=True, timeout=limit_s, env=self._environment(), check=False, **given
        )

    @contextlib.contextmanager
    def running(self, *words: str, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
        """A process that is killed at the end if it still runs; pipes to all three of its streams unless told otherwise."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with subprocess.Popen([*self._argv, *words], env=self._environment(), **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def terminal(self, *words: str, rows: int = 24, columns: int = 80) -> Iterator["Terminal"]:
        """A process on a terminal that it controls, as in a shell."""
        ours, theirs = pty.openpty()
        terminal = Terminal(ours)
        terminal.resize(rows, columns)
        with os.fdopen(ours, "rb", buffering=0):
            process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *self._argv, *words],
                stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment(), start_new_session=False,
            )  # fmt: skip
            os.close(theirs)
            terminal.process = process
            try:
                yield terminal
            finally:
                terminal.hang_up()

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name != "KUBECONFIG"}
        return {**kept, "HOME": str(self._home), "TERM": "dumb"}


class Terminal:
    """The other end of kubectl's terminal."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self.seen = b""
        self.process: subprocess.Popen[bytes] | None = None

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_text(self, text: bytes, limit_s: float = 60) -> bytes:
        """What was shown since the last wait, up to and with the text."""
        deadline = time.monotonic() + limit_s
        while text not in self.seen:
            if not self._read() and time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not shown; this was: {self.seen[-2000:]!r}")
        shown, found, self.seen = self.seen.partition(text)
        return shown + found

    def wait_end(self, limit_s: float = 60) -> int:
        """The status of kubectl, after it has ended by itself."""
        assert self.process is not None
        deadline = time.monotonic() + limit_s
        while (status := self.process.poll()) is None:
            self._read()
            assert time.monotonic() < deadline, f"kubectl has not ended; it showed {self.seen[-2000:]!r}"
        while self._read():
            pass
        return status

    def hang_up(self) -> None:
        """Kill kubectl if it still runs."""
        assert self.process is not None
        if self.process.poll() is None:
            for pid in (*_children(self.process.pid), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(60)

    def _read(self) -> bool:
        try:
            more = os.read(self._fd, 65536)
        except BlockingIOError:
            time.sleep(0.01)  # between looks at a condition
            return False
        except OSError:  # nobody has the terminal open any more
            time.sleep(0.01)
            return False
        self.seen += more
        return bool(more)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
