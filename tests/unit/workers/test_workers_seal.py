"""workers.seal: what is written is read again, and no broken file is read as something else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal.isal_zlib import crc32
from support.tars import END, entry

from criollo.errors import Damaged
from criollo.workers import seal
from criollo.workers.seal import Sealer, read_seal
from criollo.workers.tar import Parser


@contextmanager
def file_of(content: bytes = b"") -> Iterator[int]:
    fd = os.memfd_create("seal")
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def sealed(pieces: list[tuple[bytes, list[tuple[int, int]]]]) -> bytes:
    with file_of() as fd:
        sealer = Sealer(fd)
        for piece, spans in pieces:
            sealer.add(piece, spans)
        sealer.finish()
        return os.pread(fd, 1 << 24, 0)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[bytes, list[tuple[int, int]]]:
    piece = draw(st.binary(min_size=1, max_size=300))
    cuts = sorted(set(draw(st.lists(st.integers(0, len(piece)), max_size=8))))
    return piece, [span for number, span in enumerate(pairwise(cuts)) if not number % 2]


@given(st.lists(pieces(), max_size=6))
def test_a_seal_and_the_contents_are_the_archive_again(given_pieces: list[tuple[bytes, list[tuple[int, int]]]]) -> None:
    contents = iter([piece[start:end] for piece, spans in given_pieces for start, end in spans])
    whole = b""
    with file_of(sealed(given_pieces)) as fd:
        for gap, length, crc in read_seal(fd):
            whole += gap
            if length:
                content = next(contents)
                assert (len(content), crc32(content)) == (length, crc)
                whole += content
    assert whole == b"".join(piece for piece, _ in given_pieces)


@given(st.binary(max_size=400))
def test_any_other_file_is_damaged(content: bytes) -> None:
    with file_of(content) as fd, pytest.raises(Damaged, match="seal is broken"):
        list(read_seal(fd))


GOOD = sealed([(entry(b"a", content=b"content") + END, [(512, 519)])])


@settings(max_examples=200)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_never_goes_unseen(at: int, change: int) -> None:
    broken = bytearray(GOOD)
    broken[at] ^= change
    with file_of(GOOD) as fd:
        expected = list(read_seal(fd))
    with file_of(bytes(broken)) as fd:
        try:
            found = list(read_seal(fd))
        except Damaged:
            return
    assert found == expected  # a bit of the frame's header that nobody reads


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_file_is_damaged(length: int) -> None:
    with file_of(GOOD[:length]) as fd, pytest.raises(Damaged):
        list(read_seal(fd))


def test_an_archive_that_is_all_headers_gets_no_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "MAX_SEAL_BYTES", 1 << 16)
    assert sealed([(os.urandom(1 << 20), []) for _ in range(3)]) == b""


@given(st.integers(1, 3000))
def test_spans_are_where_the_parser_finds_content(step: int) -> None:
    archive = entry(b"a", content=b"x" * 700) + entry(b"d", b"5") + entry(b"b", content=b"y" * 2000) + END
    parser, found = Parser(), b""
    for at in range(0, len(archive), step):
        piece = archive[at : at + step]
        list(parser.feed(piece))
        found += b"".join(piece[start:end] for start, end in parser.spans)
    assert found == b"x" * 700 + b"y" * 2000
