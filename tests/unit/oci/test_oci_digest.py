import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.digest import Digest, chain_ids

SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize("text", [SHA, "sha512:" + "0f" * 64])
def test_valid_digests_keep_their_text(text):
    digest = Digest.parse(text)
    assert str(digest) == text
    assert f"{digest.algorithm}:{digest.hex}" == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        SHA.upper(),
        "sha256:" + "AB" * 32,
        SHA[:-1],
        SHA + "0",
        SHA + "\n",
        " " + SHA,
        "md5:" + "ab" * 16,
        "sha256:../../canary",
        "sha256:" + "g" * 64,
        "sha512:" + "ab" * 32,
        "sha256:" + "ä" * 64,
        "sha256:" + "٣" * 64,
    ],
)
def test_anything_else_is_no_digest(text):
    with pytest.raises(Invalid, match="lower-case hex"):
        Digest.parse(text, "layers[0].digest")
    with pytest.raises(Invalid):
        Digest(text)


@given(st.text(max_size=80))
def test_a_digest_that_exists_is_valid(text):
    try:
        digest = Digest.parse(text)
    except Invalid:
        return
    assert len(digest.hex) in (64, 128)
    assert set(digest.hex) <= set("0123456789abcdef")


@given(st.binary())
def test_content_matches_its_own_digest_only(content):
    digest = Digest.of(content)
    assert digest.matches(content)
    assert not digest.matches(content + b"x")


def test_chain_ids_follow_the_specification():
    first, second = Digest.of(b"1"), Digest.of(b"2")
    both = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([]) == []
    assert chain_ids([first]) == [first]
    assert chain_ids([first, second]) == [first, both]
