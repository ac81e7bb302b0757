"""storage.foreign_child: what is asked of the process that reads a store, and what it answers."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.oci.digest import Digest
from criollo.storage.foreign import ForeignImage, ImageRecord
from criollo.storage.foreign_child import StoreAnswer, StoreTask, decode, encode, work

DIGEST = Digest.of(b"x")
IMAGE = ForeignImage(ImageRecord("a" * 64, names=("x:1",)), DIGEST, b"\xff", b"{}", (DIGEST,), ("b" * 64,), 3, (b"\0",))


def test_images_come_through_as_they_are() -> None:
    task = StoreTask(store="/s", limit_s=3, known=(IMAGE,), layers=("a",))
    assert decode(encode(task), StoreTask) == task
    answer = StoreAnswer(images=(IMAGE,), refused=(("id", "why"),))
    assert decode(encode(answer), StoreAnswer) == answer
    assert isinstance(decode(encode(answer), StoreAnswer).images[0].config_digest, Digest)


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_refused(raw: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        assert isinstance(decode(raw, StoreAnswer), StoreAnswer)


def test_a_digest_that_is_none_is_refused() -> None:
    raw = encode(StoreAnswer(images=(IMAGE,))).replace(DIGEST.encode(), b"sha256:" + b"X" * 64)
    with pytest.raises(msgspec.MsgspecError):
        decode(raw, StoreAnswer)


def test_a_store_that_is_none_is_told_as_unusable(tmp_path: Path) -> None:
    assert "no such directory" in work(StoreTask(store=str(tmp_path / "none"), limit_s=3)).unusable
    assert "no such directory" in work(StoreTask(store=str(tmp_path / "none"), limit_s=3, layers=())).unusable


def test_a_path_that_no_mount_can_name_is_trouble(tmp_path: Path) -> None:
    assert "without comma" in work(StoreTask(store=str(tmp_path / "a,b"), limit_s=3)).trouble
