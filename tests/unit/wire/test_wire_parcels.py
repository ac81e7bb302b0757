import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Damaged
from criollo.wire.parcels import MAX_BYTES, Parcel, ParcelKind, Unpacker, encode, head

contents = st.lists(st.binary(max_size=40), max_size=8)


@given(contents, st.lists(st.integers(1, 30), max_size=30))
def test_parcels_survive_every_split(pieces: list[bytes], cuts: list[int]) -> None:
    wire = b"".join(encode(ParcelKind.DATA, piece) for piece in pieces) + encode(ParcelKind.END, b"{}")
    unpacker, found = Unpacker(), []
    for cut in [*cuts, len(wire)]:
        found += unpacker.feed(wire[:cut])
        wire = wire[cut:]
    assert found == [*(Parcel(ParcelKind.DATA, piece) for piece in pieces), Parcel(ParcelKind.END, b"{}")]


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
        encode(ParcelKind.END, b"") + b"x",
        encode(ParcelKind.FAILED, b"no") + encode(ParcelKind.DATA, b""),
    ],
)
def test_what_cannot_be_is_refused(wire: bytes) -> None:
    with pytest.raises(Damaged):
        list(Unpacker().feed(wire))


def test_nothing_comes_after_the_last_one_even_later() -> None:
    unpacker = Unpacker()
    assert [each.kind for each in unpacker.feed(encode(ParcelKind.END, b""))] == [ParcelKind.END]
    with pytest.raises(Damaged):
        list(unpacker.feed(encode(ParcelKind.DATA, b"x")))


def test_a_parcel_has_a_limit() -> None:
    assert len(head(ParcelKind.DATA, MAX_BYTES)) == 5
    with pytest.raises(ValueError, match="at most"):
        head(ParcelKind.DATA, MAX_BYTES + 1)
