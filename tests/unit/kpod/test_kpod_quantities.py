import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.kpod import quantities


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("500m", "0.5"),
        ("100n", "0.0000001"),
        ("1u", "0.000001"),
        ("2k", "2000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("1E", "1000000000000000000"),
        ("12e3", "12000"),
        ("12E-3", "0.012"),
        (2, "2"),
        (0.5, "0.5"),
    ],
)
def test_quantities_are_exact(text: str, amount: str) -> None:
    assert quantities.quantity(text, "f") == Decimal(amount)


@pytest.mark.parametrize(
    "text",
    ["", "m", "-1", "1 Gi", "1gi", "1KI", "0x10", "1_000", "١", "1e", "1e9999", "9Ei9", "16Ei", "inf", "NaN", True, "1\n"],
)
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(Invalid, match="the field"):
        quantities.quantity(text, "the field")


@given(st.text(alphabet="0123456789.+-eEkKMGTiPmnu _", max_size=30))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    with contextlib.suppress(Invalid):
        assert 0 <= quantities.quantity(text, "f") < 1 << 63


@given(st.integers(0, (1 << 63) - 1))
def test_whole_bytes_come_back(count: int) -> None:
    assert quantities.whole_bytes(str(count), "f") == count
    assert quantities.size_bytes(str(count), "f") == count


@given(st.integers(0, 10**9))
def test_thousandths_come_back(milli: int) -> None:
    assert quantities.milli_cpus(f"{milli}m", "f") == milli


def test_amounts_are_rounded_up() -> None:
    assert quantities.milli_cpus("1u", "f") == 1
    assert quantities.whole_bytes("100m", "f") == 1


@pytest.mark.parametrize(("milli", "weight"), [(0, 2), (1, 2), (500, 512), (1000, 1024), (10**9, 262144)])
def test_shares_are_kubelets(milli: int, weight: int) -> None:
    assert quantities.shares(milli) == weight


@pytest.mark.parametrize(("milli", "quota"), [(0, 0), (1, 1000), (500, 50_000), (2000, 200_000)])
def test_quotas_are_kubelets(milli: int, quota: int) -> None:
    assert quantities.quota_us(milli) == quota


@pytest.mark.parametrize(
    ("text", "count"),
    [("64m", 64 << 20), ("64MB", 64 << 20), ("64MiB", 64 << 20), ("1.5g", 3 << 29), ("10b", 10), ("1k", 1024)],
)
def test_sizes_are_dockers(text: str, count: int) -> None:
    assert quantities.size_bytes(text, "f") == count


@pytest.mark.parametrize("text", ["", "m", "-1", "1 m", "1mm", "٣m", "99999999t", "64m\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        quantities.size_bytes(text, "f")


@pytest.mark.parametrize(("text", "milli"), [("0.5", 500), ("2", 2000), (".25", 250), ("0.0001", 1)])
def test_processors_are_in_thousandths(text: str, milli: int) -> None:
    assert quantities.cpus(text, "f") == milli


@pytest.mark.parametrize("text", ["", ".", "0", "-1", "1e3", "NaN", "x", "1\n"])
def test_what_is_no_number_of_processors_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        quantities.cpus(text, "f")
