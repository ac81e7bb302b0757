"""wire.bolt: what was written is read, one state of it, and bytes that lie are refused. Real databases: tests/node/images."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bolt_file import PAGE, bolt_file, meta_page

from criollo.errors import Damaged
from criollo.wire.bolt import Bucket, Read, read_meta

KEYS = st.binary(min_size=1, max_size=20)
TREES = st.recursive(
    st.dictionaries(KEYS, st.binary(max_size=300), max_size=8),
    lambda inner: st.dictionaries(KEYS, st.binary(max_size=20) | inner, max_size=8),
    max_leaves=20,
)
DEEP = {
    b"v1": {b"k8s.io": {b"images": {f"name{number}".encode(): {b"target": {b"digest": b"d" * 71}} for number in range(50)}}}
}


def reader(raw: bytes) -> Read:
    return lambda offset, size: raw[offset : offset + size]


def opened(raw: bytes) -> Bucket:
    return Bucket.root(reader(raw), read_meta(reader(raw)))


def told(bucket: Bucket, depth: int = 0) -> dict[bytes, Any]:
    """A bucket as nested mappings."""
    assert depth < 20
    return {**dict(bucket.values()), **{name: told(inner, depth + 1) for name, inner in bucket.buckets()}}


@given(tree=TREES, per_page=st.integers(2, 10), inline=st.sampled_from([0, 100, 1000]))
def test_what_was_written_is_read(tree: Mapping[bytes, Any], per_page: int, inline: int) -> None:
    bucket = opened(bolt_file(tree, per_page=per_page, inline=inline))
    assert told(bucket) == tree
    for key, value in tree.items():
        inner = bucket.bucket(key)
        assert bucket.get(key) == (value if isinstance(value, bytes) else None)
        assert (told(inner) if inner is not None else None) == (None if isinstance(value, bytes) else value)


def test_what_is_not_there_is_none() -> None:
    bucket = opened(bolt_file({b"a": b"1"}))
    assert bucket.get(b"b") is None
    assert bucket.bucket(b"b") is None


def test_the_valid_meta_page_of_the_later_transaction_counts() -> None:
    raw = bytearray(bolt_file({b"a": b"1"}, txid=7))
    assert read_meta(reader(raw)).txid == 7
    raw[PAGE + 40] ^= 1  # the later one, half-written
    assert read_meta(reader(raw)).txid == 6
    raw[0:80] = meta_page(0, 2, 3, 8)
    assert read_meta(reader(raw)).txid == 8


def test_the_first_meta_page_may_be_broken() -> None:
    raw = bytearray(bolt_file({b"a": b"1"}, txid=7))
    raw[40] ^= 1
    assert read_meta(reader(raw)).txid == 7


@pytest.mark.parametrize("raw", [b"", b"\0" * 10_000, b"SQLite format 3\0" * 1000])
def test_other_files_are_no_databases(raw: bytes) -> None:
    with pytest.raises(Damaged, match="no valid meta page"):
        read_meta(reader(raw))


def test_a_page_that_leads_to_itself_is_refused() -> None:
    raw = bytearray(bolt_file({bytes([65 + number]): b"x" for number in range(4)}, per_page=2))
    root = read_meta(reader(raw)).root
    raw[root * PAGE + 16 + 8 : root * PAGE + 32] = root.to_bytes(8, "little")
    with pytest.raises(Damaged, match="led to twice"):
        told(opened(bytes(raw)))


def test_a_cut_file_is_refused() -> None:
    raw = bolt_file(DEEP)
    with pytest.raises(Damaged, match="cut off"):
        told(opened(raw[: 3 * PAGE]))


@given(where=st.lists(st.tuples(st.integers(2 * PAGE, len(bolt_file(DEEP)) - 1), st.integers(0, 255)), min_size=1, max_size=30))
def test_spoilt_pages_are_read_or_refused(where: list[tuple[int, int]]) -> None:
    raw = bytearray(bolt_file(DEEP))
    for at, value in where:
        raw[at] = value
    try:
        bucket = opened(bytes(raw))
        for name in (b"v1", b"k8s.io", b"images"):
            inner = bucket.bucket(name)
            if inner is None:
                return
            bucket = inner
        for _, image in bucket.buckets():
            list(image.values())
    except Damaged:
        return


@given(head=st.binary(max_size=80), body=st.binary(max_size=200), flags=st.sampled_from([1, 2]), count=st.integers(0, 65535))
def test_any_page_is_read_or_refused(head: bytes, body: bytes, flags: int, count: int) -> None:
    page = (2).to_bytes(8, "little") + flags.to_bytes(2, "little") + count.to_bytes(2, "little") + bytes(4) + head + body
    raw = meta_page(0, 2, 3, 2).ljust(2 * PAGE, b"\0") + page.ljust(PAGE, b"\0")
    try:
        list(opened(raw).values())
    except Damaged:
        return
