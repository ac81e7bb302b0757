"""Labels of SELinux as text: what is one, and when two mean the same."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.linux import selinux
from criollo.linux.selinux import CATEGORIES, Label, Level, canonical, parse_label, parse_range, same

CATEGORY_SETS = st.frozensets(st.integers(0, CATEGORIES - 1), max_size=12)
LEVELS = st.builds(Level, st.integers(0, 15), CATEGORY_SETS)
NAMES = st.text("abcxyz_-.019", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("system_u:system_r:container_t:s0:c1,c2", Label("system_u", "system_r", "container_t", "s0:c1,c2")),
        ("system_u:object_r:container_file_t:s0", Label("system_u", "object_r", "container_file_t", "s0")),
        ("u:r:t", Label("u", "r", "t")),
        ("u:r:t:s0-s15:c0.c1023", Label("u", "r", "t", "s0-s15:c0.c1023")),
    ],
)
def test_labels(text: str, label: Label) -> None:
    assert parse_label(text) == label
    assert str(label) == text


NO_LABELS = r"""
u|u:r|u::t|u:r:t:|u:r:t:s|u:r:t:c1|u:r:t:s0:|u:r:t:s0:c1,|u:r:t:s0:c1024|u:r:t:s0:c5.c1|u:r:t:s0:c٣|u:r:t:s0:c1 ,c2
u:r:t":s0|u:r:t:SystemLow|u:r:t:s0-|u:r:t:s0:c-1|u:r:t:s9999999999|u:r:t,x=y:s0
"""


@pytest.mark.parametrize("text", ["", "u:r:t\n:s0", "u:r:t:s0:c1,c2\n", "a" * 5000, *NO_LABELS.replace("\n", "|").split("|")])
def test_no_labels(text: str) -> None:
    with pytest.raises(Invalid):
        parse_label(text)


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("s0:c2,c1", "s0:c1,c2"),
        ("s0:c1.c2", "s0:c1,c2"),
        ("s0:c1,c2,c3", "s0:c1.c3"),
        ("s0:c5,c1.c3,c2", "s0:c1.c3,c5"),
        ("s0:c7,c7", "s0:c7"),
        ("s0-s0", "s0"),
        ("s0-s15:c0.c1023", "s0-s15:c0.c1023"),
    ],
)
def test_the_kernels_own_way_to_write_a_level(level: str, written: str) -> None:
    assert canonical(level) == written
    assert same(f"u:r:t:{level}", f"u:r:t:{written}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("u:r:t:s0:c1,c2", "u:r:t:s0:c1,c3"),
        ("u:r:t:s0", "u:r:t:s1"),
        ("u:r:t:s0", "u:r:t"),
        ("u:r:t:s0", "u:r:other:s0"),
        ("", ""),
        ("junk", "junk"),
    ],
)
def test_labels_that_do_not_mean_the_same(one: str, other: str) -> None:
    assert not same(one, other)


@given(LEVELS, LEVELS)
def test_what_is_written_is_read_again(low: Level, high: Level) -> None:
    assert parse_range(str(low)) == (low, low)
    assert parse_range(f"{low}-{high}") == (low, high)
    assert canonical(canonical(f"{low}-{high}")) == canonical(f"{low}-{high}")


@given(st.integers(0, 15), st.lists(st.integers(0, CATEGORIES - 1), min_size=1, max_size=12), st.randoms())
def test_the_order_of_categories_means_nothing(sensitivity: int, categories: list[int], random: "st.randoms") -> None:  # type: ignore[valid-type]
    shuffled = list(categories)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (f"s{sensitivity}:{','.join(f'c{each}' for each in order)}" for order in (categories, shuffled))
    assert canonical(one) == canonical(other)
    assert same(f"u:r:t:{one}", f"u:r:t:{other}")


@given(NAMES, NAMES, NAMES, LEVELS)
def test_a_label_of_parts_is_read_again(user: str, role: str, kind: str, level: Level) -> None:
    label = Label(user, role, kind, str(level))
    assert parse_label(str(label)) == label


@given(st.text(max_size=60))
def test_any_text_is_a_label_or_a_clear_error(text: str) -> None:
    try:
        found = parse_label(text)
    except Invalid:
        return
    assert str(found) == text
    assert not set(text) & set('"\\\n\0 =')


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a,b", 'a"', "a\n"])
def test_no_names_of_a_policy(name: str) -> None:
    with pytest.raises(Invalid, match=r"selinux_options\.type"):
        selinux.check_part(name, "selinux_options.type")


def test_a_file_without_label_has_an_empty_one(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert isinstance(selinux.label_of(fd), str)
    finally:
        os.close(fd)
