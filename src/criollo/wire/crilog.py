"""The CRI log format, as conmon writes and kubelet reads it.

    2026-11-21T10:00:00.123456789+00:00 stdout F a whole line
    2026-11-21T10:00:00.123456790+00:00 stderr P the beginning of a line, which
    2026-11-21T10:00:00.123456791+00:00 stderr F  ends here

Bytes in, entries out: a container may write anything, so content stays bytes. Lines longer than a cap come in
pieces, each marked partial; a line that is no entry is skipped and counted, never an error.
Source: Kubernetes, CRI logging (kubelet, pkg/kubelet/kuberuntime/logs).
"""

import datetime
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_LINE: Final = 1 << 18  # a longer line of the log is handed on in pieces
_HEAD: Final = re.compile(
    rb"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
    rb" (stdout|stderr) ([FP](?::[^ \n]*)?) "
)
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class LogEntry(NamedTuple):
    """One piece of output; `partial`: its line goes on in the next entry of the same stream. No newline in `content`."""

    at_ns: int
    stream: str
    partial: bool
    content: bytes


class LogReader:
    """Splits the bytes of a log file into entries; may be fed in any pieces. `skipped` counts lines that are none."""

    def __init__(self) -> None:
        self.skipped = 0
        self._rest = bytearray()
        self._open: LogEntry | None = None  # the line at hand was cut at MAX_LINE: its head, for the pieces to come
        self._dropping = False  # the line at hand is no entry and too long to keep

    def receive(self, data: bytes) -> Iterator[LogEntry]:
        """The entries that `data` completes."""
        self._rest += data
        start = 0
        while (end := self._rest.find(b"\n", start)) >= 0:
            yield from self._line(bytes(self._rest[start:end]), whole=True)
            start = end + 1
        del self._rest[:start]
        if len(self._rest) > MAX_LINE:
            piece = bytes(self._rest)
            self._rest.clear()
            yield from self._line(piece, whole=False)

    def _line(self, line: bytes, *, whole: bool) -> Iterator[LogEntry]:
        if self._dropping:
            self._dropping = not whole
            return
        if self._open is not None:
            entry: LogEntry | None = self._open._replace(content=line)
        else:
            entry = parse(line)
        if entry is None:
            self.skipped += 1
            self._dropping = not whole
            return
        self._open = None if whole else entry._replace(content=b"")
        yield entry if whole else entry._replace(partial=True)


def parse(line: bytes) -> LogEntry | None:
    """One line of the file without its newline; None when it is no entry."""
    head = _HEAD.match(line)
    if head is None:
        return None
    seconds, fraction, zone, stream, tags = head.groups()
    try:
        moment = datetime.datetime.fromisoformat((seconds + (b"+00:00" if zone == b"Z" else zone)).decode())
        at = (moment - _EPOCH) // datetime.timedelta(seconds=1)
    except (ValueError, OverflowError):
        return None
    at_ns = at * 1_000_000_000 + int((fraction or b"0").ljust(9, b"0"))
    return LogEntry(at_ns, stream.decode(), tags[:1] == b"P", line[head.end() :])


def format_entry(entry: LogEntry) -> bytes:
    """One line of the file, with its newline; the time in UTC, as conmon writes it on a node that runs in UTC.

    `content` must hold no newline: split there first.
    """
    seconds, ns = divmod(entry.at_ns, 1_000_000_000)
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0")
    return f"{stamp}.{ns:09d}+00:00 {entry.stream} {'P' if entry.partial else 'F'} ".encode() + entry.content + b"\n"
