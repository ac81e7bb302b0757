"""workers.deflate: what goes in comes out of `inflate`, and the same bytes give the same bytes."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.workers.deflate import COMPRESSIONS, compressor
from criollo.workers.inflate import read_plain


def squeezed(pieces: list[bytes], name: str) -> bytes:
    made = compressor(name)
    return b"".join(made.compress(piece) for piece in pieces) + made.flush()


def plain(content: bytes) -> bytes:
    ours, theirs = os.pipe()

    def write() -> None:
        with open(theirs, "wb") as sink:
            sink.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        return b"".join(read_plain(ours, "auto"))
    finally:
        os.close(ours)
        writer.join()


@pytest.mark.parametrize("name", COMPRESSIONS)
@settings(deadline=None, max_examples=30)
@given(pieces=st.lists(st.binary(max_size=2000), max_size=20))
def test_what_goes_in_comes_out(name: str, pieces: list[bytes]) -> None:
    content = b"tar " + b"".join(pieces)  # never the beginning of a compressed stream
    assert plain(squeezed([b"tar ", *pieces], name)) == content


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_nothing_of_the_moment_is_written(name: str) -> None:
    content = [os.urandom(1000) * 50 for _ in range(20)]
    assert squeezed(content, name) == squeezed(content, name)


def test_another_name_is_refused() -> None:
    with pytest.raises(Invalid, match="gzip or zstd or none"):
        compressor("xz")
