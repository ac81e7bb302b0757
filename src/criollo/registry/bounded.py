"""Answers whose framing ends: not only content has limits, but all that a server may send around it.

The library waits for every byte anew and reads as many interim answers, header lines, chunk sizes and trailers as come, so a
server that drips them or never stops would hold a thread for ever. Here what comes between two pieces of content has to come
within the socket's timeout, in at most `FRAMING_BYTES`. Content is read by `read1` only; its limits are its reader's.

Source: RFC 9112, sections 3 to 7.
"""

import io
import math
import socket
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

FRAMING_BYTES: Final = 256 << 10


class Endless(HTTPException):
    """More headers, chunk sizes or trailers than any answer needs."""


class BoundedResponse(HTTPResponse):
    """The library's, with an end; see the module."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._meter = _Meter(self.fp.detach(), sock.gettimeout())
        self.fp = io.BufferedReader(self._meter)

    def read1(self, n: int = -1) -> bytes:
        self._meter.allow(max(0, n))
        return super().read1(n)


class _Meter(io.RawIOBase):
    """The bytes of a socket until time or allowance is used up; `allow` gives new ones."""

    def __init__(self, raw: io.RawIOBase, limit_s: float | None) -> None:
        self._raw = raw
        self._limit_s = math.inf if limit_s is None else limit_s
        self.allow(0)

    def allow(self, content_bytes: int) -> None:
        self._left = FRAMING_BYTES + content_bytes
        self._until = time.monotonic() + self._limit_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        if count:
            self._left -= count
            if self._left < 0:
                raise Endless(f"over {FRAMING_BYTES} bytes that are no content")
            if time.monotonic() > self._until:
                raise TimeoutError("the answer comes in too small pieces")
        return count

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._raw.close()
