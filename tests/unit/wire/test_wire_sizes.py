"""Sizes of terminals."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from criollo.wire.sizes import parse_size


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b'{"Width":80,"Height":24}', (24, 80)),
        (b'{"Height":24,"Width":80}\n', (24, 80)),
        (b'{"width":80,"height":24,"X":[{}]}', (24, 80)),
        (b'{"Width":65535,"Height":1}', (1, 65535)),
    ],
)
def test_size_of_a_terminal(document: bytes, expected: tuple[int, int]) -> None:
    assert parse_size(document) == expected


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"Width":80}',
        b'{"Width":-1,"Height":24}',
        b'{"Width":0,"Height":0}',
        b'{"Width":65536,"Height":24}',
        b'{"Width":1e99,"Height":24}',
        b'{"Width":80.5,"Height":24}',
        b'{"Width":"80","Height":"24"}',
        b'{"Width":true,"Height":true}',
        b'{"Width":80,"Height":24',
        b'{"Width":80,"Height":24}{}',
        b'{"\xff":1}',
        b"[" * 900,
        b'{"a":' * 180,
    ],
)
def test_what_is_no_size_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_size(document)


@given(st.binary(max_size=60))
@example(b'{"Width":80,"Height":24}')
def test_size_of_junk_is_in_range_or_refused(document: bytes) -> None:
    try:
        rows, columns = parse_size(document)
    except ValueError:
        return
    assert 0 < rows <= 65535
    assert 0 < columns <= 65535
