import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Damaged
from criollo.wire.parcels import MAX_BYTES, Kind, Parcel, Unpacker, encode, head

contents = st.lists(st.binary(max_size=40), max_size=8)


@given(contents, st.lists(st.integers(1, 30), max_size=30))
def test_parcels_survive_every_split(pieces: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(encode(Kind.DATA, piece) for piece in pieces) + encode(Kind.END, b"{}")
    unpacker, found = Unpacker(), []
    for cut in [*cuts, len(wire)]:
        found += unpacker.feed(wire[:cut])
        wire = wire[cut:]
    assert found == [*(Parcel(Kind.DATA, piece) for piece in pieces), Parcel(Kind.END, b"{}")]


@given(st.binary(max_size=200))
def test_any_bytes_are_parcels_or_damaged(wire: bytes) -> None:
    try:
        found = list(Unpacker().feed(wire))
    except Damaged:
        return
    assert sum(5 + len(each.content) for each in found) <= len(wire)


@pytest.mark.parametrize(
    "wire",
    [
        b"\x03\0\0\0\0",
        b"\xff\0\0\0\0",
        b"\0" + (MAX_BYTES + 1).to_bytes(4, "big"),
        encode(Kind.END, b"") + b"x",
        encode(Kind.FAILED, b"no") + encode(Kind.DATA, b""),
    ],
)
def test_what_cannot_be_is_refused(wire: bytes) -> None:
    with pytest.raises(Damaged):
        list(Unpacker().feed(wire))


def test_nothing_comes_after_the_last_one_even_later() -> None:
    unpacker = Unpacker()
    assert [each.kind for each in unpacker.feed(encode(Kind.END, b""))] == [Kind.END]
    with pytest.raises(Damaged):
        list(unpacker.feed(encode(Kind.DATA, b"x")))


def test_a_parcel_has_a_limit() -> None:
    assert len(head(Kind.DATA, MAX_BYTES)) == 5
    with pytest.raises(ValueError, match="at most"):
        head(Kind.DATA, MAX_BYTES + 1)
