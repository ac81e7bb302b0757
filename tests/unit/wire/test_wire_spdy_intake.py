"""What was read and not yet taken."""

from hypothesis import given
from hypothesis import strategies as st

from criollo.wire.spdy_intake import Intake


def test_all_that_was_added_is_passed_on_without_a_copy() -> None:
    octets, intake = bytes(1 << 16), Intake()
    intake.add(octets)
    assert intake.piece(1 << 20) is octets
    assert not intake.has_more


def test_whole_waits_for_its_size() -> None:
    intake = Intake()
    intake.add(b"abc")
    assert intake.whole(5) is None
    assert not intake.has_more
    intake.add(b"defg")
    assert intake.whole(5) == b"abcde"
    assert intake.piece(9) == b"fg"


def test_nothing_is_whole_at_once() -> None:
    assert Intake().whole(0) == b""


@given(st.lists(st.binary(max_size=9)), st.lists(st.tuples(st.booleans(), st.integers(1, 7)), min_size=1))
def test_bytes_come_out_as_they_went_in(added: list[bytes], asked: list[tuple[bool, int]]) -> None:
    intake, out, n = Intake(), b"", 0
    for octets in added:
        intake.add(octets)
        while intake.has_more:
            is_whole, size = asked[n % len(asked)]
            taken = intake.whole(size) if is_whole else intake.piece(size)
            if taken is None:
                break
            out, n = out + taken, n + 1
    assert b"".join(added).startswith(out)
    assert len(b"".join(added)) - len(out) < 7
