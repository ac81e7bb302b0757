"""workers.inflate: every format whole, cut, broken, joined and padded, in bounded pieces."""

import bz2
import gzip
import lzma
import os
import threading
import zlib
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Damaged, Unsupported
from criollo.workers import inflate

PLAIN = os.urandom(70_000) + bytes(400_000) + b"text " * 20_000
SKIPPABLE = b"\x55\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"


def zstd(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain)


MAKERS = {"gzip": gzip.compress, "zstd": zstd, "xz": lzma.compress, "bzip2": bz2.compress, "none": bytes}
COMPRESSED = {name: maker(PLAIN) for name, maker in MAKERS.items()}


def plain_of(stream: bytes, compression: str) -> bytes:
    return b"".join(pieces_of(stream, compression))


def pieces_of(stream: bytes, compression: str) -> list[bytes]:
    source, sink = os.pipe()

    def write() -> None:
        try:
            with os.fdopen(sink, "wb") as file:
                file.write(stream)
        except BrokenPipeError:
            pass

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return list(inflate.read_plain(source, compression))
    finally:
        os.close(source)
        writer.join()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("told", [True, False])
def test_formats(name: str, told: bool) -> None:
    assert plain_of(COMPRESSED[name], name if told else "auto") == PLAIN


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_joined_streams_are_one(name: str) -> None:
    parts = [MAKERS[name](part) for part in (b"a", b"", b"b" * 100_000, b"c")]
    assert plain_of(b"".join(parts), name) == b"a" + b"b" * 100_000 + b"c"


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("cut", [1, 2, 5, 9, 4000])
def test_cut_stream_is_damaged(name: str, cut: int) -> None:
    with pytest.raises(Damaged):
        plain_of(COMPRESSED[name][:-cut], name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
@pytest.mark.parametrize("length", range(1, 30))
def test_a_few_bytes_are_damaged(name: str, length: int) -> None:
    with pytest.raises(Damaged):
        plain_of(MAKERS[name](b"")[: min(length, len(MAKERS[name](b"")) - 1)], name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_no_bytes_are_damaged(name: str) -> None:
    with pytest.raises(Damaged):
        plain_of(b"", name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_junk_after_the_end_is_damaged(name: str) -> None:
    with pytest.raises(Damaged):
        plain_of(COMPRESSED[name] + b"trailing junk", name)


def test_zeros_after_gzip_are_padding() -> None:
    assert plain_of(COMPRESSED["gzip"] + bytes(70_000), "gzip") == PLAIN


@pytest.mark.parametrize("zeros", [1, 3, inflate.READ_BYTES - len(gzip.compress(b"a")), inflate.READ_BYTES, 300_000])
def test_a_member_after_padding_is_damaged_wherever_it_begins(zeros: int) -> None:
    with pytest.raises(Damaged, match="gzip"):
        plain_of(gzip.compress(b"a") + bytes(zeros) + gzip.compress(b"b"), "gzip")


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_wrong_checksum_is_damaged(name: str) -> None:
    broken = bytearray(COMPRESSED[name])
    broken[-6 if name == "gzip" else -2] ^= 1
    with pytest.raises(Damaged):
        plain_of(bytes(broken), name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
@given(st.binary(max_size=2000))
def test_random_bytes_are_damaged(name: str, junk: bytes) -> None:
    with pytest.raises(Damaged):
        plain_of(junk, name)


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_bomb_comes_in_small_pieces(name: str) -> None:
    pieces = pieces_of(MAKERS[name](bytes(50 << 20)), name)
    assert sum(map(len, pieces)) == 50 << 20
    assert max(map(len, pieces)) <= 2 << 20


def test_zstd_runs_come_in_small_pieces() -> None:
    header = b"\x28\xb5\x2f\xfd" + b"\x00\x58"  # window of 2 MiB, no size, no checksum
    run = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (0 << 3 | 1).to_bytes(3, "little")
    pieces = pieces_of(header + run * 2000 + last, "zstd")
    assert sum(map(len, pieces)) == 2000 * (128 << 10)
    assert max(map(len, pieces)) <= 2 << 20


def test_zstd_window_is_limited() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    engine = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stream = engine.compress(os.urandom(1 << 20)) + engine.flush()
    with pytest.raises(Damaged, match="zstd"):
        plain_of(stream, "zstd")


def test_zstd_skippable_frames_are_skipped() -> None:
    assert plain_of(SKIPPABLE + zstd(b"a") + SKIPPABLE + zstd(b"b"), "zstd") == b"ab"
    assert plain_of(SKIPPABLE + zstd(b"a"), "auto") == b"a"


@pytest.mark.parametrize("step", [1, 7, inflate.READ_BYTES])
def test_zstd_frame_of_another_size_than_it_says_is_damaged(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflate, "READ_BYTES", step)
    empty = b"\x01\x00\x00"
    for stream in (b"\x28\xb5\x2f\xfd\x20\xcb" + empty, zstd(b"a") + b"\x28\xb5\x2f\xfd\x60\x01\x00" + empty):
        with pytest.raises(Damaged, match="zstd"):
            plain_of(stream, "zstd")
    assert plain_of(b"\x28\xb5\x2f\xfd\x20\x00" + empty, "zstd") == b""


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(1, 50))
def test_zstd_frames_are_followed_in_any_split(parts: list[bytes], step: int) -> None:
    stream = b"".join(SKIPPABLE + zstd(part) for part in parts)
    frames = inflate.Frames()
    pieces = [bytes(view) for at in range(0, len(stream), step) for view in frames.split(stream[at : at + step])]
    frames.close()
    assert b"".join(pieces) == stream


def test_format_that_lies_is_damaged() -> None:
    with pytest.raises(Damaged):
        plain_of(COMPRESSED["zstd"], "gzip")
    with pytest.raises(Damaged):
        plain_of(PLAIN, "zstd")


def test_nested_compression_is_peeled_once() -> None:
    assert plain_of(gzip.compress(COMPRESSED["gzip"]), "auto") == COMPRESSED["gzip"]


def test_unknown_format() -> None:
    with pytest.raises(Unsupported, match="lz4"):
        plain_of(b"", "lz4")


def test_files_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(zlib.compress(b"x", wbits=31))
    with path.open("rb") as file:
        assert b"".join(inflate.read_plain(file.fileno(), "auto")) == b"x"
