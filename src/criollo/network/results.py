"""What a plugin says: a result or an error, as typed values or one error of ours. Pure.

Source: CNI SPEC 1.1.0, section 5; results of 0.3.1 and 0.4.0 have the same shape, plus `version` in each IP.
"""

import ipaddress
import re
from typing import Final

import msgspec

from criollo.errors import Damaged
from criollo.model.pod import Record

LIMIT_BYTES: Final = 1 << 20
MAX_ENTRIES: Final = 1000
CONTAINER_UNKNOWN: Final = 3  # error code: nothing to clean up

_NAME: Final = re.compile(r"[^/\s\x00-\x1f\x7f]{1,255}")


class Interface(Record, frozen=True, kw_only=True):
    name: str
    mac: str | None = None
    sandbox: str | None = None


class Ip(Record, frozen=True, kw_only=True):
    address: str
    gateway: str | None = None
    interface: int | None = None


class Route(Record, frozen=True, kw_only=True):
    dst: str
    gw: str | None = None


class DnsResult(Record, frozen=True, kw_only=True):
    nameservers: list[str] | None = None
    domain: str | None = None
    search: list[str] | None = None
    options: list[str] | None = None


class Result(Record, frozen=True, kw_only=True):
    """A success. Go plugins write `null` for an empty list."""

    interfaces: list[Interface] | None = None
    ips: list[Ip] | None = None
    routes: list[Route] | None = None
    dns: DnsResult | None = None


class PluginError(Record, frozen=True, kw_only=True):
    code: int
    msg: str = ""
    details: str = ""

    def __str__(self) -> str:
        return f"{self.msg}; {self.details}" if self.details else self.msg or f"error code {self.code}"


def decode_object(data: bytes) -> dict[str, object]:
    """A JSON object as it is, to hand on to the next plugin.

    Raises:
        Damaged: no JSON object, or longer or deeper than allowed.
    """
    if len(data) >= LIMIT_BYTES:
        raise Damaged(f"result of {LIMIT_BYTES} bytes or more")
    if not data.strip():
        raise Damaged("no result on stdout")
    try:
        document = msgspec.json.decode(data, type=dict[str, object])
        msgspec.json.encode(document)  # what cannot be written again cannot be handed on
    except (msgspec.DecodeError, RecursionError, UnicodeError, OverflowError) as error:
        raise Damaged(f"result is no JSON object ({error})") from None
    return document


def decode_result(data: bytes) -> Result:
    """A result, every address and name in it checked.

    Raises:
        Damaged: saying which part is wrong.
    """
    if len(data) >= LIMIT_BYTES:
        raise Damaged(f"result of {LIMIT_BYTES} bytes or more")
    try:
        result = msgspec.json.decode(data, type=Result)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise Damaged(f"malformed result ({error})") from None
    _check_counts(result)
    for interface in result.interfaces or ():
        if not _NAME.fullmatch(interface.name) or not (interface.mac or "").isprintable():
            raise Damaged(f"malformed interface {interface.name!r} in result")
    for ip in result.ips or ():
        _address(ip)
        if ip.interface is not None and not 0 <= ip.interface < len(result.interfaces or ()):
            raise Damaged(f"address {ip.address!r} names interface {ip.interface}, which the result does not have")
    for route in result.routes or ():
        _network(route)
    if result.dns is not None:
        _check_dns(result.dns)
    return result


def pod_addresses(result: Result, netns: str) -> tuple[str, ...]:
    """The pod's own addresses, without prefix length and without duplicates.

    Order: as the plugins gave them, but the first of each family before the second of any. Addresses on interfaces of
    the host are the pod's only if a plugin that leaves `sandbox` out gave no others; those in another sandbox never are.
    """
    sandboxes = [interface.sandbox or "" for interface in result.interfaces or ()]
    placed = [(netns if ip.interface is None else sandboxes[ip.interface], ip) for ip in result.ips or ()]
    own = [ip for sandbox, ip in placed if sandbox == netns] or [ip for sandbox, ip in placed if not sandbox]
    found = [_address(ip) for ip in own]
    leaders = [next(a for a in found if a.version == version) for version in dict.fromkeys(a.version for a in found)]
    return tuple(dict.fromkeys(str(address.ip) for address in [*leaders, *found]))


def decode_error(data: bytes) -> PluginError | None:
    """The error a plugin printed; None when what it printed is none."""
    if len(data) >= LIMIT_BYTES:
        return None
    try:
        error = msgspec.json.decode(data, type=PluginError)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return error if error.code else None


def _address(ip: Ip) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    try:
        address = ipaddress.ip_interface(ip.address)
        if ip.gateway:
            ipaddress.ip_address(ip.gateway)
    except ValueError as error:
        raise Damaged(f"malformed address in result: {error}") from None
    ip_only = address.ip
    wrong = "/" not in ip.address or "%" in ip.address
    wrong = wrong or ip_only.is_multicast or ip_only.is_unspecified or ip_only.is_loopback
    if isinstance(ip_only, ipaddress.IPv6Address):
        wrong = wrong or ip_only.ipv4_mapped is not None
    if wrong:
        raise Damaged(f"address {ip.address!r} in result is none that a pod can have")
    return address


def _network(route: Route) -> None:
    try:
        ipaddress.ip_interface(route.dst)
        if route.gw:
            ipaddress.ip_address(route.gw)
    except ValueError as error:
        raise Damaged(f"malformed route in result: {error}") from None


def _check_dns(dns: DnsResult) -> None:
    for text in (*(dns.nameservers or ()), *(dns.search or ()), *(dns.options or ()), dns.domain or ""):
        if not text.isprintable():
            raise Damaged(f"control character in the dns part of the result: {text!r}")


def _check_counts(result: Result) -> None:
    for entries in (result.interfaces, result.ips, result.routes):
        if entries is not None and len(entries) > MAX_ENTRIES:
            raise Damaged(f"result with more than {MAX_ENTRIES} entries in one list")
