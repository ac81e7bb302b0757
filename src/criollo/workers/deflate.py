"""Plain bytes → compressed bytes, the reverse of `workers.inflate`: the same bytes in give the same bytes out.

gzip is ISA-L's at level 2: a tenth of zlib's time for 6 % more bytes. No time of day and no name is written.
"""

from typing import Final, Protocol

import zstandard
from isal import isal_zlib

from criollo.errors import Invalid

COMPRESSIONS: Final = ("gzip", "zstd", "none")
_GZIP_WINDOW: Final = 31  # 32 KiB, with gzip's header
_GZIP_LEVEL: Final = 2
_ZSTD_LEVEL: Final = 3


class Compressor(Protocol):
    """Takes pieces; what comes back may be empty until `flush`."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compressor(name: str) -> Compressor:
    """A compressor for one stream: `gzip`, `zstd` or `none`.

    Raises:
        Invalid: another name.
    """
    if name == "gzip":
        return isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    if name == "zstd":
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    if name == "none":
        return _Plain()
    raise Invalid("compression", name, " or ".join(COMPRESSIONS))


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""
