"""workers.decrypt: the stream of an encrypted layer. Keys and their worker: tests/node/daemon/test_daemon_encrypted.py."""

import hmac
import itertools
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher as Engine
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Damaged
from criollo.workers.decrypt import opener
from criollo.workers.messages import Cipher

KEY, NONCE = bytes(range(32)), bytes(range(16))


def encrypted(content: bytes) -> tuple[bytes, Cipher]:
    sealed = Engine(algorithms.AES(KEY), modes.CTR(NONCE)).encryptor().update(content)
    return sealed, Cipher(key=KEY, nonce=NONCE, hmac=hmac.digest(KEY, sealed, "sha256"))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_pieces_of_any_size_give_the_content(content: bytes, cuts: list[int]) -> None:
    sealed, cipher = encrypted(content)
    ends = sorted({0, len(sealed), *(min(cut, len(sealed)) for cut in cuts)})
    pieces = [sealed[start:end] for start, end in itertools.pairwise(ends)]
    assert b"".join(opener(cipher)(iter(pieces))) == content


@pytest.mark.parametrize("at", [0, 50, 99])
def test_a_changed_byte_is_damage_at_the_end(at: int) -> None:
    sealed, cipher = encrypted(os.urandom(100))
    changed = bytes(byte ^ (number == at) for number, byte in enumerate(sealed))
    stream = opener(cipher)(iter([changed]))
    assert len(next(stream)) == 100
    with pytest.raises(Damaged, match="HMAC"):
        next(stream)


def test_a_stream_that_was_cut_is_damage() -> None:
    sealed, cipher = encrypted(b"x" * 100)
    with pytest.raises(Damaged, match="HMAC"):
        list(opener(cipher)(iter([sealed[:-1]])))


def test_the_key_is_not_shown() -> None:
    assert "\\x01" not in repr(encrypted(b"")[1])
