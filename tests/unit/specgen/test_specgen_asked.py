import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.specgen.asked import FORMER, find

NOW = "userns-mode.crio.io"
THEN = FORMER[NOW]


@pytest.mark.parametrize("allowed", [(NOW,), (THEN,)])
@pytest.mark.parametrize("written", [NOW, THEN])
def test_wish_is_found_and_allowed_by_either_name(allowed: tuple[str, ...], written: str) -> None:
    assert find({written: "auto"}, NOW, allowed) == "auto"


def test_name_of_today_goes_first() -> None:
    assert find({THEN: "old", NOW: "new"}, NOW, [NOW]) == "new"


def test_variant_is_its_own_and_covered_by_its_name() -> None:
    annotations = {"x.crio.io/web": "1", "x.crio.io/other": "2"}
    assert find(annotations, "x.crio.io", ["x.crio.io"], of="web") == "1"
    assert find(annotations, "x.crio.io", ["x.crio.io/web"], of="web") == "1"
    assert find(annotations, "x.crio.io", ["x.crio.io/web"], of="other") is None
    assert find(annotations, "x.crio.io", ["x.crio.io"]) is None


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=5)), st.lists(st.text(max_size=30)))
def test_nothing_is_found_that_is_not_allowed(annotations: dict[str, str], allowed: list[str]) -> None:
    if NOW not in allowed and THEN not in allowed:
        assert find({**annotations, NOW: "auto"}, NOW, allowed) is None
