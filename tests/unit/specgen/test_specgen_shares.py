"""Shares of caches and memory bandwidth."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.linux.resctrl import Bandwidth, Cache
from criollo.specgen import shares

CACHE = Cache(0xFFF, 2, (0, 1))
PERCENT, MBPS = Bandwidth(10, 10, (0,), in_mbps=False), Bandwidth(1, 1, (0,), in_mbps=True)


@pytest.mark.parametrize(
    ("share", "base", "mask"),
    [
        ("100%", 0xFFF, 0xFFF),
        ("50%", 0xFFF, 0x3F),
        ("50-100%", 0xFFF, 0xFC0),
        ("1%", 0xFFF, 0x3),
        ("99-100%", 0xFFF, 0xC00),
        ("50%", 0xFF0, 0x0F0),
        ("0x3", 0xFF0, 0x030),
        ("0-3", 0xFF0, 0x0F0),
        ("2,3", 0xFFF, 0x00C),
    ],
)
def test_a_share_counts_from_the_lowest_bit_of_its_base(share: str, base: int, mask: int) -> None:
    assert shares.bits(share, base, 2, field="x") == mask


@pytest.mark.parametrize("share", ["0%", "101%", "60-50%", "0x5", "0x1", "0x1fff", "0,2", "20", "0x0"])
def test_bits_that_cannot_be_are_refused(share: str) -> None:
    with pytest.raises(Invalid):
        shares.bits(share, 0xFFF, 2, field="x")


@given(st.integers(0, 120), st.integers(0, 120), st.integers(2, 20), st.integers(0, 8), st.integers(1, 2))
def test_a_share_lies_within_its_base_in_one_piece(first: int, last: int, width: int, low: int, least: int) -> None:
    base = ((1 << width) - 1) << low
    with contextlib.suppress(Invalid):
        mask = shares.bits(f"{first}-{last}%", base, least, field="x")
        assert mask & ~base == 0
        assert mask.bit_count() >= least
        assert "0" not in bin(mask)[2:].rstrip("0")


def test_partitions_by_percentage_lie_side_by_side() -> None:
    masks = shares.partition_masks({"a": {"all": "50%"}, "b": {"all": "25%"}}, "L3", CACHE, 0, field="x")
    assert masks == {"a": 0x03F, "b": 0x1C0}


def test_partitions_together_are_no_more_than_the_whole_and_do_not_overlap() -> None:
    for shared in ({"a": {"all": "60%"}, "b": {"all": "50%"}}, {"a": {"all": "0x3"}, "b": {"0": "0x6"}}):
        with pytest.raises(Invalid):
            shares.partition_masks(shared, "L3", CACHE, 0, field="x")


def test_one_cache_may_have_a_share_of_its_own() -> None:
    allocation = {"all": "50%", "1-2": "20%", "5": {"unified": "30%", "code": "10%", "data": "5%"}}
    found = [shares.said(allocation, one, "L3") for one in (0, 1, 2, 5)]
    assert found == ["50%", "20%", "20%", "30%"]
    assert [shares.said(allocation, 5, name) for name in ("L3CODE", "L3DATA")] == ["10%", "5%"]
    assert shares.said(None, 0, "L3") is None


@pytest.mark.parametrize(
    ("partition", "own", "expected"), [("50%", "50%", 30), (None, "1%", 10), ("100%", None, 100), ("80%", "100%", 80)]
)
def test_bandwidth_is_a_share_of_the_partitions_rounded_up(partition: str | None, own: str | None, expected: int) -> None:
    whole, mine = ({"all": [each, "500MBps"]} if each else None for each in (partition, own))
    assert shares.bandwidth(whole, mine, PERCENT, 0) == expected


def test_bandwidth_in_mbps_is_the_lesser_one() -> None:
    assert shares.bandwidth({"all": ["50%", "2000MBps"]}, {"all": ["900MBps"]}, MBPS, 0) == 900
    assert shares.bandwidth({"all": ["50%"]}, None, MBPS, 0) == (1 << 32) - 1
