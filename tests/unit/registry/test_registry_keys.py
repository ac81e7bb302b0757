"""registry.keys: which keys count, which are refused, which are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.registry.keys import check_unknown, folded

KNOWN = ("blocked", "location", "credHelpers")


def test_known_keys_count_in_any_case_under_their_own_names():
    assert folded({"Blocked": 1, "LOCATION": 2, "credhelpers": 3, "other": 4}, KNOWN, "x") == {
        "blocked": 1,
        "location": 2,
        "credHelpers": 3,
    }


def test_a_key_in_two_spellings_is_refused():
    with pytest.raises(Invalid, match="blocked twice"):
        folded({"blocked": 1, "Blocked": 2}, KNOWN, "x")


@pytest.mark.parametrize("key", ["bloked", "Blockd", "locatoin"])
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(key):
    with pytest.raises(Invalid, match=r"got .* expected (blocked|location)\? All keys are blocked, credHelpers, location"):
        check_unknown({key: 1}, KNOWN, "x")


def test_a_key_of_another_place_is_refused():
    check_unknown({"qqqq": 1}, KNOWN, "x")
    with pytest.raises(Invalid, match="expected one of blocked"):
        check_unknown({"qqqq": 1}, KNOWN, "x", elsewhere=["qqqq"])


@given(st.dictionaries(st.text(max_size=12), st.integers(), max_size=6))
def test_whatever_the_keys_only_known_ones_come_out(table):
    try:
        found = folded(table, KNOWN, "x")
        check_unknown(table, KNOWN, "x")
    except Invalid:
        return
    assert set(found) <= set(KNOWN)
    assert len(found) == sum(key.lower() in {name.lower() for name in KNOWN} for key in table)
