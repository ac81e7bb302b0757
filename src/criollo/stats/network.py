"""What the kernel counts for the network interfaces of one network namespace.

Source: proc(5), /proc/net/dev.
"""

from typing import Final, NamedTuple

_COLUMNS: Final = 16
_MAX_BYTES: Final = 1 << 20
_LOOPBACK: Final = "lo"


class Interface(NamedTuple):
    """Bytes and errors since the interface was made."""

    name: str
    rx_bytes: int
    rx_errors: int
    tx_bytes: int
    tx_errors: int


def parse_interfaces(content: bytes) -> list[Interface]:
    """The interfaces of `/proc/net/dev` but loopback, in its order; lines that are none are skipped."""
    found = []
    for line in content.decode("ascii", "replace").splitlines():
        name, colon, rest = line.rpartition(":")  # an interface may be called `a:b`
        words = rest.split()
        if not colon or len(words) < _COLUMNS or not all(word.isascii() and word.isdigit() for word in words):
            continue
        if (name := name.strip()) != _LOOPBACK:
            received, sent = words[:8], words[8:16]
            found.append(Interface(name, int(received[0]), int(received[2]), int(sent[0]), int(sent[2])))
    return found


def read_interfaces() -> list[Interface]:
    """The interfaces of the network namespace that the calling thread is in (blocking).

    Raises:
        OSError: no /proc.
    """
    with open("/proc/thread-self/net/dev", "rb", buffering=0) as file:
        return parse_interfaces(file.read(_MAX_BYTES))
