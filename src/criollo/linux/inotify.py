"""inotify(7): learn that something in a directory changed.

A watch names a directory, not files (the kernel's own apart): a configuration is replaced by renaming over it, which a
watch on the file would miss. Reading is non-blocking; the descriptor is for an event loop.
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

IN_MODIFY: Final = 0x2  # linux/inotify.h
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
_IN_ONLYDIR: Final = 0x1000000

CHANGED: Final = (
    IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
)
_HEADER: Final = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len; then the name, padded with NUL
_BUFFER_BYTES: Final = 64 << 10

_calls = ctypes.CDLL(None, use_errno=True)
_calls.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class FileEvent(NamedTuple):
    """`watch` is what `add` returned, -1 for an overflow; `name` is the entry in that directory, or empty."""

    watch: int
    mask: int
    name: bytes


class Inotify:
    """One inotify descriptor with its watches."""

    def __init__(self) -> None:
        self.fd = _checked(_calls.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, directory: Path, mask: int = CHANGED) -> int:
        """Watch a directory; the same directory again gives the same number."""
        return _checked(_calls.inotify_add_watch(self.fd, os.fsencode(directory), mask | _IN_ONLYDIR), directory)

    def add_file(self, file: Path, mask: int) -> int:
        """Watch a file, for one that the kernel makes: nobody renames over it."""
        return _checked(_calls.inotify_add_watch(self.fd, os.fsencode(file), mask), file)

    def remove(self, watch: int) -> None:
        """End a watch; one that the kernel has ended already is fine."""
        _calls.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[FileEvent]:
        """What has happened since; empty when nothing has."""
        try:
            return parse(os.read(self.fd, _BUFFER_BYTES))
        except BlockingIOError:
            return []

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def parse(buffer: bytes) -> list[FileEvent]:
    """The events of one read; bytes that are no whole event are left out."""
    events, at = [], 0
    while at + _HEADER.size <= len(buffer):
        watch, mask, _cookie, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        if at + length > len(buffer):
            break
        events.append(FileEvent(watch, mask, buffer[at : at + length].rstrip(b"\0")))
        at += length
    return events


def _checked(result: int, path: Path | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path) if path else None)
    return result
