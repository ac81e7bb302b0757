"""Talk to a running monitor: make it open its log anew, set the terminal's size, find its attach socket.

    <bundle>/ctl      fifo, lines of three numbers; conmon reads and never answers
    <bundle>/attach   SOCK_SEQPACKET, behind the link <attach_dir>/<id>

Nothing blocks: a fifo without a reader is an error at once.
"""

import asyncio
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from criollo.errors import HostFailed, TimedOut, WrongState, explain
from criollo.wire import conmon as protocol

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.05
_SAY_AGAIN_S: Final = 1.0


async def reopen_log(container_id: str, bundle: Path, *, log_path: Path, limit_s: float = 10.0) -> None:
    """Have the monitor write to a new file at `log_path`; returns when that file is there.

    A file that still is at that path is replaced: rename it away before, as kubelet does.

    Raises:
        WrongState: the monitor is gone.
        HostFailed: the log's directory is gone; conmon is not asked then, because it ends when it cannot open its log.
        TimedOut: no new file after `limit_s` seconds.
    Source: CRI v1, ReopenContainerLog; conmon 2.1, src/ctr_logging.c.
    """
    if not log_path.parent.is_dir():
        raise HostFailed(f"cannot reopen the log of container {container_id}: {log_path.parent} is no directory; make it first")
    before = _identity(log_path)
    loop = asyncio.get_running_loop()
    said_at, pause_s = float("-inf"), _FIRST_PAUSE_S
    try:
        async with asyncio.timeout(limit_s):
            while _identity(log_path) in (None, before):
                if loop.time() > said_at + _SAY_AGAIN_S:  # a line that conmon 2.1 reads together with another may be lost
                    _say(container_id, bundle, protocol.format_reopen())
                    said_at = loop.time()
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
    except TimeoutError:
        raise TimedOut(
            f"cannot reopen the log of container {container_id}: its monitor made no new {log_path} within {limit_s:g} s"
        ) from None


def resize(container_id: str, bundle: Path, *, rows: int, columns: int) -> None:
    """Set the size of a container's terminal. Not twice within a tenth of a second: conmon 2.1 may take the first one twice.

    Raises:
        WrongState: the monitor is gone.
    """
    _say(container_id, bundle, protocol.format_resize(rows, columns))


@contextmanager
def attach_address(bundle: Path) -> Iterator[str]:
    """A path for connect(2) to the attach socket, short enough for any bundle; valid inside the block."""
    with explain(f"open bundle {bundle}"):
        directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/attach"
    finally:
        os.close(directory)


def _say(container_id: str, bundle: Path, line: bytes) -> None:
    try:
        fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise WrongState("container", container_id, "without a living monitor", "a running one") from None
        raise HostFailed(f"cannot open the control fifo of container {container_id}: {error.strerror}") from error
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise HostFailed(f"cannot control container {container_id}: {bundle / 'ctl'} is no fifo")
        with explain(f"write to the control fifo of container {container_id}"):
            os.write(fd, line)  # shorter than PIPE_BUF: whole, or EAGAIN
    finally:
        os.close(fd)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
