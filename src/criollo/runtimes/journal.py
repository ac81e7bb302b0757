"""What a runtime says of one exec: its log, which it opens by a path beneath our /proc/<pid>/fd, so that no file is made.

    a file in memory    read when the runtime has ended
    a pipe, followed    for a runtime that passes the command's streams on itself, as runc does: it lives until every process
                        that inherited them has closed them. With `--debug` it says at once that the command has ended, and how.

Source: runc, signals.go: "process exited" with pid and status, since its first commit.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from criollo.aio.streams import readable as has_bytes
from criollo.telemetry.scrub import scrubbed
from criollo.wire.runtime import exit_told, readable

_LOG_BYTES: Final = 1 << 16  # what comes beyond is dropped
_PAUSE_S: Final = 0.02  # runc says thirty things at each start: they may gather
_DEBUG: Final = b'"level":"debug"'
_PIECE_BYTES: Final = 1 << 16


class Journal:
    """Made before the runtime is spawned, closed after it has ended."""

    def __init__(self, *, is_followed: bool) -> None:
        self._is_followed = is_followed
        self._text, self._line = b"", b""
        if is_followed:
            self._fd, self._entry = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # the runtime opens the entry anew, to wait there
        else:
            self._fd = self._entry = os.memfd_create("exec-log", os.MFD_CLOEXEC)

    @property
    def options(self) -> list[str]:
        """The runtime's global options for it."""
        debug = ["--debug"] if self._is_followed else []
        return [*debug, f"--log=/proc/{os.getpid()}/fd/{self._entry}", "--log-format=json"]

    async def exit_told(self, is_idle: Callable[[], bool]) -> int:
        """The command's exit status, once the runtime tells of an exit and has no child any more: `is_idle`.

        Never returns without; `words` are complete only if somebody waits here.
        """
        while True:
            if not self._is_followed:
                await asyncio.get_running_loop().create_future()
            await has_bytes(self._fd)
            for line in self._lines():
                if (status := exit_told(line)) is not None and is_idle():
                    return status
            await asyncio.sleep(_PAUSE_S)

    def words(self) -> str:
        """The runtime's last error; empty when it had none."""
        if self._is_followed:
            self._lines()
            return scrubbed(readable(self._text))
        return scrubbed(readable(os.pread(self._fd, _LOG_BYTES, 0)))

    def close(self) -> None:
        for fd in {self._fd, self._entry} - {-1}:
            os.close(fd)
        self._fd = self._entry = -1

    def _lines(self) -> list[bytes]:
        """Those that have become whole."""
        try:
            piece = os.read(self._fd, _PIECE_BYTES)
        except BlockingIOError:
            return []
        *lines, self._line = (self._line + piece)[-_LOG_BYTES:].split(b"\n")
        self._text += b"".join(line + b"\n" for line in lines if _DEBUG not in line)[: _LOG_BYTES - len(self._text)]
        return lines
