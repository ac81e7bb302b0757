"""SPDY/3 header blocks: names and values, each with its length, through one zlib stream per direction of a session.

The stream goes on from block to block, so each block must be inflated, even one nobody asked for, and a damaged one ends
the session. What comes out of one block is bounded before it is looked at: a few bytes can stand for gigabytes.
Source: SPDY Protocol, draft 3.1, sections 2.6.10 and 2.6.10.1 (the dictionary).
"""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

from criollo.wire.spdy_frames import Broken

MAX_BLOCK: Final = 16 << 10  # inflated; clients of exec and port-forward send under 200 bytes
MAX_HEADERS: Final = 64
_WORD: Final = struct.Struct(">I")

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length content-location "
    "content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match "
    "if-range "
    "if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer "
    "retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status "
    "200\u00a0OK version HTTP/1.1 url public set-cookie keep-alive origin"
)  # a no-break space stands for one within a word
_REST: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public"
    "privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class Unacceptable(ValueError):
    """A block that was read, with headers that the protocol forbids: its stream is refused, the session goes on."""


def _dictionary() -> bytes:
    words = [word.replace("\u00a0", " ").encode() for word in _WORDS.split(" ")]
    return b"".join(_WORD.pack(len(word)) + word for word in words) + _REST.encode()


DICTIONARY: Final = _dictionary()


class Deflater:
    """Header blocks of one direction, as they are sent."""

    def __init__(self) -> None:
        # A window of 2 KiB holds the dictionary: 16 KiB of memory instead of 256.
        self._zlib = zlib.compressobj(6, zlib.DEFLATED, 11, 4, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)

    def block(self, headers: Mapping[str, str]) -> bytes:
        """One block. Names go out in lower case, as the protocol wants them."""
        parts = [_WORD.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += (_WORD.pack(len(text)), text)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Inflater:
    """Header blocks of one direction, as they come."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def block(self, octets: bytes) -> dict[str, str]:
        """The headers of one block, names in lower case; several values of one name joined by a comma.

        Raises:
            Broken: not the continuation of the stream, over `MAX_BLOCK` when inflated, or lengths that do not add up.
            Unacceptable: an empty, repeated or upper-case name, too many, or not UTF-8.
        """
        try:
            plain = self._zlib.decompress(octets, MAX_BLOCK + 1)
        except zlib.error as error:
            raise Broken(f"header block: {error}") from None
        if len(plain) > MAX_BLOCK or self._zlib.unconsumed_tail:
            raise Broken(f"header block of more than {MAX_BLOCK} bytes")
        if self._zlib.eof:
            raise Broken("header block that ends the compressed stream")
        return _headers(_pairs(plain))


def _pairs(plain: bytes) -> list[tuple[bytes, bytes]]:
    count, at = _word(plain, 0)
    if count > (len(plain) - at) // 8:
        raise Broken(f"header block of {len(plain)} bytes with {count} headers")
    pairs = []
    for _ in range(count):
        name, at = _text(plain, at)
        value, at = _text(plain, at)
        pairs.append((name, value))
    if at != len(plain):
        raise Broken(f"header block with {len(plain) - at} bytes after its last header")
    return pairs


def _word(plain: bytes, at: int) -> tuple[int, int]:
    if len(plain) < at + 4:
        raise Broken("header block that ends within a length")
    return int.from_bytes(plain[at : at + 4], "big"), at + 4


def _text(plain: bytes, at: int) -> tuple[bytes, int]:
    length, at = _word(plain, at)
    if length > len(plain) - at:
        raise Broken(f"header of {length} bytes where {len(plain) - at} are left")
    return plain[at : at + length], at + length


def _headers(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    if len(pairs) > MAX_HEADERS:
        raise Unacceptable(f"{len(pairs)} headers, at most {MAX_HEADERS}")
    headers: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        try:
            name, value = raw_name.decode(), raw_value.decode()
        except UnicodeDecodeError:
            raise Unacceptable("a header that is not UTF-8") from None
        if not name or name in headers or name != name.lower():
            raise Unacceptable(f"header name {name[:64]!r}: empty, repeated or in upper case")
        headers[name] = value.replace("\0", ", ")
    return headers
