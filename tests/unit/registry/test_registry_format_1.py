"""registry.format_1: lists of the old registries.conf as tables of the new one."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.registry.format_1 import lists_of, told, translated


def test_each_list_becomes_what_it_meant():
    lists = lists_of({"registries": {"search": {"registries": ["a.b"]}, "block": {"registries": ["c.d/"]}}}, "x")
    assert lists == {"search": ["a.b"], "block": ["c.d/"]}
    assert translated(lists) == {
        "registry": [{"location": "c.d", "blocked": True}],
        "unqualified-search-registries": ["a.b"],
    }


def test_a_host_of_two_lists_is_one_table():
    tables = translated({"block": ["c.d"], "insecure": ["c.d", "e.f"]})["registry"]
    assert tables == [{"location": "c.d", "blocked": True, "insecure": True}, {"location": "e.f", "insecure": True}]


@pytest.mark.parametrize("value", [7, {"search": 7}, {"search": {"registries": "a.b"}}, {"block": {"registries": [7]}}])
def test_what_are_no_lists_is_refused(value):
    with pytest.raises(Invalid, match="x: registries"):
        lists_of({"registries": value}, "x")


HOSTS = st.lists(st.from_regex(r"[a-z]{1,5}\.[a-z]{1,5}", fullmatch=True), max_size=5)


@given(st.fixed_dictionaries({}, optional={"search": HOSTS, "insecure": HOSTS, "block": HOSTS}))
def test_what_people_are_told_to_write_says_the_same(lists):
    text = told(lists).removeprefix("write instead ")
    if not any(lists.values()):
        assert text == "[[registry]] tables"
        return
    written = tomllib.loads(text.replace("; ", "\n").replace("]] ", "]]\n").replace('" ', '"\n').replace("true ", "true\n"))
    meant = translated(lists)
    assert written.get("registry", []) == meant["registry"]
    assert written.get("unqualified-search-registries", []) == (meant.get("unqualified-search-registries") or [])
