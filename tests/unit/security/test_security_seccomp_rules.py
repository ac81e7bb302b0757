import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.runtime_spec import SeccompArg
from criollo.security.seccomp_rules import LOWER, parse_kernel, parse_ranges, within

numbers = st.one_of(st.integers(0, 80), st.integers(0, LOWER))


def holds(one: SeccompArg, argument: int) -> bool:
    return argument & one.value == one.value_two


@given(pair=st.tuples(numbers, numbers), value=numbers, upper=st.integers(0, LOWER))
def test_range_holds_for_its_numbers_whatever_the_upper_half_is(pair: tuple[int, int], value: int, upper: int) -> None:
    first, last = sorted(pair)
    found = [holds(one, upper << 32 | value) for one in within(0, [(first, last)])]
    assert sum(found) == (first <= value <= last)


def test_ranges_are_read() -> None:
    assert parse_ranges("0-37 39 0x20000") == [(0, 37), (39, 39), (0x20000, 0x20000)]


@pytest.mark.parametrize(("text", "version"), [("4.8", (4, 8)), ("5.10.3", (5, 10)), ("06.1", (6, 1))])
def test_kernel_versions_are_read(text: str, version: tuple[int, int]) -> None:
    assert parse_kernel(text, "minKernel") == version


@pytest.mark.parametrize("text", ["", "5", "a.b", "5.", "-1.2", "5.10-rc1", "٤.٨", "1.2.3.4", "123456.1"])
def test_other_text_is_no_kernel_version(text: str) -> None:
    with pytest.raises(Invalid, match="minKernel"):
        parse_kernel(text, "minKernel")
