import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.yaml_documents import LIMIT_BYTES, read_documents

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), max_size=12
)  # what PyYAML writes right
KEYS = WORDS.filter(bool)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def read(text: str) -> list[Any]:
    return read_documents(text.encode(), "f.yaml")


def test_documents_come_in_order_without_empty_ones() -> None:
    assert read("a: 1\n---\n---\n# nothing\n---\nb: [x, 2]\n") == [{"a": 1}, {"b": ["x", 2]}]


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
def test_json_and_what_yaml_writes_come_back(document: dict[str, Any]) -> None:
    assert read(json.dumps(document)) == [document]
    assert read(yaml.safe_dump(document, allow_unicode=True)) == [document]


@given(st.binary(max_size=200))
def test_any_bytes_are_documents_or_refused(raw: bytes) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(read_documents(raw, "f"), list)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@, \n\t?123e.~<=", max_size=80))
def test_any_punctuation_is_a_document_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert isinstance(read(text), list)


def test_aliases_are_refused_before_they_grow() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(Invalid, match="line 2: an alias"):
        read(bomb)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "line 2: the key 'a' twice"),
        ('{"a": 1, "a": 2}', "twice"),
        ("1: x\n", "a key that is no text"),
        ("? [a]\n: x\n", "a key that is no text"),
        ("a: !!python/object:os.system x\n", "the tag"),
        ("a: !!binary eA==\n", "the tag"),
        ("a: !mine x\n", "the tag"),
        ("[" * 100 + "]" * 100, "deep nesting"),
        ("[" * 100_000, "deep nesting"),
        ("{" * 100, "got"),
        ("a: [\n", "expected the node content"),
        ("a: " + "9" * 5000, "got"),
        ("a: \x07", "got"),
    ],
)
def test_traps_are_refused_with_their_place(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=r"f\.yaml") as caught:
        read(text)
    assert said in str(caught.value)


def test_size_and_encoding_are_checked() -> None:
    with pytest.raises(Invalid, match="at most"):
        read_documents(b"#" * (LIMIT_BYTES + 1), "f")
    with pytest.raises(Invalid, match="byte 0xff at offset 3"):
        read_documents(b"a: \xff", "f")
    assert read_documents(b"\xef\xbb\xbfa: 1", "f") == [{"a": 1}]


@pytest.mark.parametrize("text", ["2001-01-01", "2001-12-14t21:59:43.10-05:00", "1:30", "1:30.5", "<<", "=", "0o17", "y", "n"])
def test_what_kubernetes_takes_for_text_is_text(text: str) -> None:
    assert read(f"a: {text}") == [{"a": text}]


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("yes", True), ("~", None), ("", None), ("0x10", 16), ("1.5", 1.5)]
)
def test_other_plain_words_have_their_types(text: str, value: object) -> None:
    assert read(f"a: {text}") == [{"a": value}]
