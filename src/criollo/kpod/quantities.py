"""Amounts as people write them: Kubernetes quantities in manifests, sizes and processors of `kpod run`. Exact, no floats.

Sources: Kubernetes API, resource.Quantity; kubelet's conversion to cgroup values (MilliCPUToShares, MilliCPUToQuota).
"""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from criollo.errors import Invalid

CPU_PERIOD_US: Final = 100_000
MIN_QUOTA_US: Final = 1_000  # the kernel takes no less
MIN_SHARES: Final = 2
MAX_SHARES: Final = 262_144

_LARGEST: Final = (1 << 63) - 1
_QUANTITY: Final = re.compile(
    r"([+-]?)([0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?"
)
_SIZE: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(b|k|m|g|t)?(?:i?b)?")
_BINARY: Final = {unit: 1 << (10 * power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SIZES: Final = {unit: 1 << (10 * power) for power, unit in enumerate("bkmgt")}


def quantity(text: str | int | float, field: str) -> Decimal:
    """The amount that a Kubernetes quantity such as `500m`, `1.5Gi` or `12e3` stands for.

    Raises:
        Invalid: no quantity, negative, or beyond 2^63.
    """
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[1] == "-":
        raise Invalid(field, text, "a quantity such as '500m', '0.5', '64Mi' or '1G'")
    suffix = match[3] or ""
    amount = Decimal(match[2])
    if suffix in _BINARY:
        amount *= _BINARY[suffix]
    else:
        amount = amount.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:] or 0))
    if amount > _LARGEST:
        raise Invalid(field, text, "less than 2^63")
    return amount


def whole_bytes(text: str | int | float, field: str) -> int:
    """A quantity of memory in bytes, rounded up."""
    return _ceiling(quantity(text, field))


def milli_cpus(text: str | int | float, field: str) -> int:
    """A quantity of processors in thousandths, rounded up. Raises Invalid beyond a million processors."""
    amount = quantity(text, field)
    if amount > 1_000_000:
        raise Invalid(field, text, "at most a million processors")
    return _ceiling(amount * 1000)


def shares(milli: int) -> int:
    """The weight of a request, as kubelet computes it."""
    return min(MAX_SHARES, max(MIN_SHARES, milli * 1024 // 1000))


def quota_us(milli: int) -> int:
    """Microseconds per `CPU_PERIOD_US` for a limit; 0, not limited, for 0."""
    return max(MIN_QUOTA_US, milli * CPU_PERIOD_US // 1000) if milli else 0


def size_bytes(text: str, field: str) -> int:
    """A size as `64m`, `1.5g` or `4096`: powers of 1024, either case.

    Raises:
        Invalid: no size, or beyond 2^63.
    """
    match = _SIZE.fullmatch(text.lower())
    if match is None:
        raise Invalid(field, text, "a size such as 64m, 1.5g or a number of bytes")
    amount = _ceiling(Decimal(match[1]) * _SIZES[match[2] or "b"])
    if amount > _LARGEST:
        raise Invalid(field, text, "less than 2^63 bytes")
    return amount


def cpus(text: str, field: str) -> int:
    """Processors such as `0.5` in thousandths."""
    try:
        amount = Decimal(text) if re.fullmatch(r"[0-9]{0,7}(\.[0-9]{0,9})?", text) else Decimal(0)
    except InvalidOperation:
        amount = Decimal(0)
    if amount <= 0:
        raise Invalid(field, text, "a number of processors such as 0.5 or 2")
    return _ceiling(amount * 1000)


def _ceiling(amount: Decimal) -> int:
    whole = int(amount)
    return whole + 1 if amount > whole else whole
