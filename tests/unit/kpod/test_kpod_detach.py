import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod.detach import Watcher, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-P", b"\x10"),
        ("ctrl-@,a,ctrl-],ctrl-\\,ctrl-^,ctrl-_,ctrl-[", b"\0a\x1d\x1c\x1e\x1f\x1b"),
        ("q", b"q"),
        ("", b""),
    ],
)
def test_keys_are_the_bytes_that_a_terminal_gives(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", ",", "ctrl-p ctrl-q", "é", "\n"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="--detach-keys"):
        parse_keys(text)


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=3), st.lists(st.integers(1, 5), max_size=20))
def test_what_is_typed_arrives_up_to_the_keys_in_any_split(typed: bytes, keys: bytes, cuts: list[int]) -> None:
    watcher, passed, left = Watcher(keys), b"", typed
    for cut in [*cuts, len(typed)]:
        passed += watcher.feed(left[:cut])
        left = left[cut:]
    passed += watcher.rest()
    assert watcher.has_found == (keys in typed)
    assert passed == (typed.partition(keys)[0] if keys in typed else typed)


@given(st.binary(max_size=30))
def test_without_keys_everything_passes(typed: bytes) -> None:
    watcher = Watcher(b"")
    assert (watcher.feed(typed), watcher.rest(), watcher.has_found) == (typed, b"", False)


def test_the_first_key_waits_for_the_next() -> None:
    watcher = Watcher(b"\x10\x11")
    assert [watcher.feed(b"a\x10"), watcher.feed(b"\x10"), watcher.feed(b"b")] == [b"a", b"\x10", b"\x10b"]
