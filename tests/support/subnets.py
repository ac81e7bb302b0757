"""Networks for pods of tests that nothing else on this machine uses."""

import itertools
import random
import struct
from pathlib import Path
from socket import inet_ntoa

_turns = itertools.count(random.randrange(256))


def free() -> str:
    """The first three numbers of a /24 without a route, as `10.199.7.`.

    Another one with every call: a bridge of a run that was killed, or of a daemon beside, keeps its network.
    """
    taken = _routed()
    for turn in itertools.islice(_turns, 256):
        prefix = f"10.199.{turn % 256}."
        if prefix not in taken:
            return prefix
    raise RuntimeError("every network of 10.199.0.0/16 has a route here; `ip route` shows whose")


def _routed() -> set[str]:
    """The /24 prefixes of the kernel's main table (proc(5), /proc/net/route: addresses in network order as one word)."""
    lines = Path("/proc/net/route").read_text().splitlines()[1:]
    targets = (inet_ntoa(struct.pack("=I", int(line.split()[1], 16))) for line in lines)
    return {target.rpartition(".")[0] + "." for target in targets}
