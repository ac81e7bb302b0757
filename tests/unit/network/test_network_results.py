"""network.results: what plugins answer."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Damaged
from criollo.network.results import LIMIT_BYTES, decode_error, decode_object, decode_result, pod_addresses

NETNS = "/run/netns/x"
INTERFACES = [{"name": "br0", "mac": "02:00:00:00:00:01"}, {"name": "veth1"}, {"name": "eth0", "sandbox": NETNS}]


def encoded(**parts: object) -> bytes:
    return json.dumps({"cniVersion": "1.0.0", **parts}).encode()


def addresses(*ips: dict[str, object], interfaces: object = INTERFACES) -> tuple[str, ...]:
    return pod_addresses(decode_result(encoded(interfaces=interfaces, ips=list(ips))), NETNS)


def test_order_is_the_plugins() -> None:
    assert addresses({"address": "10.0.0.2/24"}, {"address": "10.0.0.1/24"}) == ("10.0.0.2", "10.0.0.1")


def test_first_of_each_family_comes_in_front() -> None:
    given_order = ({"address": "10.0.0.2/24"}, {"address": "10.0.1.2/24"}, {"address": "fd00::2/64"})
    assert addresses(*given_order) == ("10.0.0.2", "fd00::2", "10.0.1.2")


def test_family_of_the_first_address_leads() -> None:
    assert addresses({"address": "fd00::2/64"}, {"address": "10.0.0.2/24"}) == ("fd00::2", "10.0.0.2")


def test_duplicates_count_once() -> None:
    assert addresses({"address": "10.0.0.2/24"}, {"address": "10.0.0.2/24"}) == ("10.0.0.2",)


def test_addresses_of_host_interfaces_are_not_the_pods() -> None:
    assert addresses({"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.2/24", "interface": 2}) == ("10.0.0.2",)


def test_addresses_of_another_sandbox_are_never_the_pods() -> None:
    other = [{"name": "eth0", "sandbox": "/run/netns/other"}]
    assert addresses({"address": "10.0.0.2/24", "interface": 0}, interfaces=other) == ()


def test_a_plugin_without_sandbox_still_gives_an_address() -> None:
    assert addresses({"address": "10.0.0.2/24", "interface": 0}, interfaces=[{"name": "eth0"}]) == ("10.0.0.2",)


@pytest.mark.parametrize("empty", [None, []])
def test_lists_may_be_null(empty: object) -> None:
    assert decode_result(encoded(interfaces=empty, ips=empty, routes=empty, dns=None)).ips == empty


def test_the_older_shape_with_version_is_read() -> None:
    shape = {"version": "4", "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 2}
    assert addresses(shape) == ("10.0.0.2",)


@pytest.mark.parametrize(
    "address",
    ["", "x", "10.0.0.2", "10.0.0.2/33", "10.0.0/24", "fe80::1%eth0/64", "::ffff:10.0.0.2/120", "224.0.0.1/24", "ff02::1/64",
     "0.0.0.0/0", "::/0", "127.0.0.1/8", "10.0.0.2/24\n", "10.0.0.2/255.255.255.0x", "١٠.0.0.2/24"],
)  # fmt: skip
def test_addresses_that_no_pod_can_have_are_refused(address: str) -> None:
    with pytest.raises(Damaged):
        decode_result(encoded(ips=[{"address": address}]))


@pytest.mark.parametrize(
    "parts",
    [
        {"ips": [{"address": "10.0.0.2/24", "gateway": "x"}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": 3}], "interfaces": INTERFACES},
        {"ips": [{"address": "10.0.0.2/24", "interface": -1}], "interfaces": INTERFACES},
        {"ips": [{"address": "10.0.0.2/24", "interface": 0}]},
        {"ips": [{"address": "10.0.0.2/24", "interface": "2"}], "interfaces": INTERFACES},
        {"ips": "10.0.0.2"},
        {"ips": [{"address": "10.0.0.2/24"}] * 1001},
        {"ips": [{}]},
        {"interfaces": [{"name": "a/b"}]},
        {"interfaces": [{"name": "a\n"}]},
        {"interfaces": [{"name": ""}]},
        {"interfaces": [{"name": "eth0", "mac": "\u001b[0m"}]},
        {"routes": [{"dst": "x"}]},
        {"routes": [{"dst": "0.0.0.0/0", "gw": "x"}]},
        {"dns": {"nameservers": ["10.0.0.1\nnameserver 6.6.6.6"]}},
        {"dns": {"search": ["a\nb"]}},
        {"dns": []},
    ],
)
def test_malformed_parts_are_refused(parts: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        decode_result(encoded(**parts))


@pytest.mark.parametrize("data", [b"", b" \n", b"x", b"[]", b"null", b"\xff", b"{", b'{"a":' * 100_000, b"[" * 100_000,
                                  b'{"a": NaN}', b" " * LIMIT_BYTES])  # fmt: skip
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_object(data)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_value_or_damaged(junk: bytes) -> None:
    for decode in (decode_object, decode_result):
        with contextlib.suppress(Damaged):
            decode(junk)
    decode_error(junk)


WHOLE = encoded(interfaces=INTERFACES, ips=[{"address": "10.0.0.2/24", "interface": 2}], dns={})


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_result_is_damaged(length: int) -> None:
    with pytest.raises(Damaged):
        decode_result(WHOLE[:length])


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=3))
def test_a_mutated_result_gives_a_value_or_damaged(at: int, change: bytes) -> None:
    with contextlib.suppress(Damaged):
        pod_addresses(decode_result(WHOLE[:at] + change + WHOLE[at + 1 :]), NETNS)


def test_an_error_says_message_and_details() -> None:
    error = decode_error(json.dumps({"code": 7, "msg": "Invalid", "details": "too small"}).encode())
    assert error is not None
    assert (error.code, str(error)) == (7, "Invalid; too small")


@pytest.mark.parametrize("data", [WHOLE, b"", b"oops", b'{"code": 0}', b'{"code": "7"}', b"[]", b"{" * LIMIT_BYTES])
def test_what_is_no_error_is_none(data: bytes) -> None:
    assert decode_error(data) is None
