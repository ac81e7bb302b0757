"""Counters of network interfaces."""

from hypothesis import given
from hypothesis import strategies as st

from criollo.stats.network import Interface, parse_interfaces, read_interfaces

HEAD = b"""Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
"""


def test_each_interface_but_loopback_is_read() -> None:
    content = HEAD + (
        b"    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0   0\n"
        b"  eth0: 1234567    1000    3    0    0     0          0         0    89012     500    4    0    0     0       0   0\n"
        b"eth0:1:18446744073709551615 1 2 0 0 0 0 0 7 1 0 0 0 0 0 0\n"
    )
    assert parse_interfaces(content) == [
        Interface("eth0", 1234567, 3, 89012, 4, rx_packets=1000, rx_dropped=0, tx_packets=500, tx_dropped=0),
        Interface("eth0:1", (1 << 64) - 1, 2, 7, 0, rx_packets=1, rx_dropped=0, tx_packets=1, tx_dropped=0),
    ]


@given(st.binary(max_size=400))
def test_any_content_is_parsed(content: bytes) -> None:
    for interface in parse_interfaces(HEAD + content):
        assert interface.name != "lo"


def test_own_namespace_can_be_read() -> None:
    assert all(interface.rx_bytes >= 0 for interface in read_interfaces())
