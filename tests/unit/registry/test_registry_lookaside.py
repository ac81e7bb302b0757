"""registry.lookaside on files; servers answer in tests/node/trust."""

import asyncio
from typing import Any, cast

import pytest
from support.signing import put_signature

from criollo.aio import threads
from criollo.errors import Invalid
from criollo.oci.digest import Digest
from criollo.oci.signature import MAX_BYTES
from criollo.registry.lookaside import MAX_SIGNATURES, fetch, store

DIGEST = Digest.of(b"x")
NO_REGISTRY = cast(Any, None)


def read(base):
    try:
        return asyncio.run(fetch(NO_REGISTRY, base, "team/app", DIGEST))
    finally:
        threads.close()


def test_signatures_are_numbered_from_one_without_gaps(tmp_path):
    assert read(f"file://{tmp_path}") == []
    for number in (1, 2, 4):
        put_signature(tmp_path, "team/app", DIGEST, b"%d" % number, number=number)
    assert read(f"file://{tmp_path}") == read(f"file://{tmp_path}/") == [b"1", b"2"]


def test_a_path_may_have_letters_that_a_url_has_not(tmp_path):
    put_signature(tmp_path / "a b", "team/app", DIGEST, b"x")
    assert read(f"file://{tmp_path}/a%20b") == [b"x"]


def test_too_many_or_too_long(tmp_path):
    put_signature(tmp_path, "team/app", DIGEST, bytes(MAX_BYTES + 1))
    with pytest.raises(Invalid):
        read(f"file://{tmp_path}")
    for number in range(1, MAX_SIGNATURES + 2):
        put_signature(tmp_path, "team/app", DIGEST, b"x", number=number)
    with pytest.raises(Invalid, match="too many or too long"):
        read(f"file://{tmp_path}")


def test_all_together_have_a_limit(tmp_path):
    for number in range(1, 3):
        put_signature(tmp_path, "team/app", DIGEST, bytes(MAX_BYTES), number=number)
    with pytest.raises(Invalid, match="too many or too long"):
        read(f"file://{tmp_path}")


def test_what_is_stored_is_found_in_order(tmp_path):
    paths = [store(f"file://{tmp_path}/a%20b", "team/app", DIGEST, b"%d" % number) for number in (1, 2)]
    assert [path.name for path in paths] == ["signature-1", "signature-2"]
    assert read(f"file://{tmp_path}/a%20b") == [b"1", b"2"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["signature-1", "signature-2"]
    assert paths[0].stat().st_mode & 0o777 == 0o644


def test_nothing_is_stored_where_nobody_can_write(tmp_path):
    with pytest.raises(Invalid, match="lookaside-staging"):
        store("https://example.com/s", "team/app", DIGEST, b"x")
    for number in range(1, MAX_SIGNATURES + 1):
        put_signature(tmp_path, "team/app", DIGEST, b"x", number=number)
    with pytest.raises(Invalid, match="remove old ones"):
        store(f"file://{tmp_path}", "team/app", DIGEST, b"x")
