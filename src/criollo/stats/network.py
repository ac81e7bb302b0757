"""What the kernel counts for the network interfaces of one network namespace.

Source: proc(5), /proc/net/dev.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

_COLUMNS: Final = 16
_MAX_BYTES: Final = 1 << 20
_LOOPBACK: Final = "lo"


class Interface(NamedTuple):
    """What went through an interface since it was made."""

    name: str
    rx_bytes: int
    rx_errors: int
    tx_bytes: int
    tx_errors: int
    rx_packets: int = 0
    rx_dropped: int = 0
    tx_packets: int = 0
    tx_dropped: int = 0


class Network(NamedTuple):
    """The interfaces of a pod; none where its network is the host's or cannot be seen any more."""

    at_ns: int
    interfaces: Sequence[Interface]


def parse_interfaces(content: bytes) -> list[Interface]:
    """The interfaces of `/proc/net/dev` but loopback, in its order; lines that are none are skipped."""
    found = []
    for line in content.decode("ascii", "replace").splitlines():
        name, colon, rest = line.rpartition(":")  # an interface may be called `a:b`
        words = rest.split()
        if not colon or len(words) < _COLUMNS or not all(word.isascii() and word.isdigit() for word in words):
            continue
        if (name := name.strip()) != _LOOPBACK:
            received, sent = [int(word) for word in words[:4]], [int(word) for word in words[8:12]]
            counted = (received[0], received[2], sent[0], sent[2], received[1], received[3], sent[1], sent[3])
            found.append(Interface(name, *counted))
    return found


def read_interfaces() -> list[Interface]:
    """The interfaces of the network namespace that the calling thread is in (blocking).

    Raises:
        OSError: no /proc.
    """
    with open("/proc/thread-self/net/dev", "rb", buffering=0) as file:
        return parse_interfaces(file.read(_MAX_BYTES))
