"""How large /dev/shm of a pod is: shm-size.crio.io, where its handler or workload allows that. Pure."""

import re
from collections.abc import Collection
from typing import Final

from criollo.errors import Invalid
from criollo.model.pod import PodConfig
from criollo.specgen.asked import find

SHM_SIZE: Final = "shm-size.crio.io"

_QUANTITY: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9}))?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P|)", re.ASCII)
_UNITS: Final = (
    {"": 1, "k": 1000}
    | {unit: 1000**power for power, unit in enumerate("MGTP", 2)}
    | {f"{unit}i": 1024**power for power, unit in enumerate("KMGTP", 1)}
)
_MOST: Final = 1 << 50


def shm_bytes(config: PodConfig, allowed: Collection[str], *, default: int) -> int:
    """The size in bytes; `default` where the pod asks for none. The memory is that of who writes there.

    Raises:
        Invalid: it asks for no positive quantity.
    """
    asked = find(config.annotations, SHM_SIZE, allowed) if config.annotations else None
    return default if asked is None else parse_quantity(asked)


def parse_quantity(text: str) -> int:
    """`64Mi`, `1.5G`, `1048576`: a quantity of Kubernetes in bytes, rounded up. Raises Invalid."""
    match = _QUANTITY.fullmatch(text.strip())
    if match:
        scale = 10 ** len(match[2] or "")
        size: int = -(-int(match[1] + (match[2] or "")) * _UNITS[match[3]] // scale)
        if 0 < size <= _MOST:
            return size
    raise Invalid(f"annotation {SHM_SIZE}", text, "a positive quantity such as 64Mi or 1G")
