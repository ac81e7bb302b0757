"""What a pod brings to a network: its values, checked, and in the forms that plugins take them. Pure.

Source: CNI SPEC 1.1.0, section 3, Attachment Parameters; CNI CONVENTIONS, capabilities; Kubernetes, annotations
kubernetes.io/ingress-bandwidth and egress-bandwidth.
"""

import ipaddress
import math
import re
from decimal import Decimal
from typing import Final

from criollo.errors import Invalid
from criollo.model.pod import Dns, PortMapping, Record

INTERFACE: Final = "eth0"
INGRESS: Final = "kubernetes.io/ingress-bandwidth"
EGRESS: Final = "kubernetes.io/egress-bandwidth"
BURST_BITS: Final = (1 << 31) - 1  # the bandwidth plugin refuses bursts of 4 GiB and more

Json = dict[str, object]

_QUANTITY: Final = re.compile(r"(\+?[0-9]{1,18}(?:\.[0-9]{0,9})?|\+?\.[0-9]{1,9})([A-Za-z]{0,2}|[eE][+-]?[0-9]{1,2})")
_SUFFIXES: Final = {
    "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "E": Decimal(10**18), "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9"),
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30), "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50),
    "Ei": Decimal(1 << 60),
}  # fmt: skip
_RATE_BITS: Final = (1000, 10**15)  # what Kubernetes accepts: 1k to 1P bits per second


class Attachment(Record, frozen=True, kw_only=True):
    """One pod at one network. `netns` is the pinned namespace's path; `annotations` are the pod's, unfiltered."""

    pod_id: str
    netns: str
    name: str
    namespace: str
    uid: str
    ports: tuple[PortMapping, ...] = ()
    annotations: dict[str, str] = {}
    cgroup_path: str = ""
    dns: Dns | None = None
    mac: str = ""
    ip_ranges: tuple[tuple[dict[str, str], ...], ...] = ()


class Attached(Record, frozen=True, kw_only=True):
    """What ADD gave. `ips` without prefix length, the first of each family in front; `result` is the plugin's JSON."""

    network_name: str
    ips: tuple[str, ...]
    result: bytes


def cni_args(attachment: Attachment) -> tuple[tuple[str, str], ...]:
    """The generic arguments of Kubernetes runtimes, in their usual order.

    Raises:
        Invalid: a value holds what separates arguments, or a control character.
    """
    return (
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", _argument("config.metadata.namespace", attachment.namespace)),
        ("K8S_POD_NAME", _argument("config.metadata.name", attachment.name)),
        ("K8S_POD_INFRA_CONTAINER_ID", _argument("pod id", attachment.pod_id)),
        ("K8S_POD_UID", _argument("config.metadata.uid", attachment.uid)),
    )


def capability_args(attachment: Attachment) -> Json:
    """All that a plugin may ask for by declaring the capability; empty ones are left out.

    Raises:
        Invalid: a port mapping or bandwidth annotation makes no sense.
    """
    offered: Json = {
        "portMappings": [
            _port(mapping, f"config.port_mappings[{at}]") for at, mapping in enumerate(attachment.ports) if mapping.host_port
        ],
        "bandwidth": _bandwidth(attachment.annotations),
        "dns": _dns(attachment.dns),
        "mac": attachment.mac,
        "ipRanges": [list(pool) for pool in attachment.ip_ranges],
        "cgroupPath": attachment.cgroup_path,
        "io.kubernetes.cri.pod-annotations": attachment.annotations,
    }
    return {name: value for name, value in offered.items() if value}


def rate_bits(text: str, field: str) -> int:
    """A Kubernetes quantity as bits per second, rounded up.

    Raises:
        Invalid: no quantity, or not within 1k to 1P.
    """
    match = _QUANTITY.fullmatch(text)
    suffix = match[2] if match else ""
    if match is None or not (suffix in _SUFFIXES or suffix[1:].lstrip("+-").isdigit()):
        raise Invalid(field, text, "a quantity of bits per second such as 10M")
    scale = _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(f"1e{suffix[1:]}")
    exact = Decimal(match[1]) * scale
    if not _RATE_BITS[0] <= exact <= _RATE_BITS[1]:
        raise Invalid(field, text, "between 1k and 1P bits per second")
    return math.ceil(exact)


def _argument(field: str, value: str) -> str:
    if not value.isprintable() or any(c in value for c in ";="):
        raise Invalid(field, value, "text without ';', '=' and control characters, because it goes into CNI_ARGS")
    return value


def _port(mapping: PortMapping, field: str) -> Json:
    for name, port in (("host_port", mapping.host_port), ("container_port", mapping.container_port)):
        if not 0 < port <= 65535:
            raise Invalid(f"{field}.{name}", port, "1 to 65535")
    entry: Json = {
        "hostPort": mapping.host_port,
        "containerPort": mapping.container_port,
        "protocol": str(mapping.protocol.value),
    }
    if mapping.host_ip:
        try:
            entry["hostIP"] = str(ipaddress.ip_address(mapping.host_ip))
        except ValueError:
            raise Invalid(f"{field}.host_ip", mapping.host_ip, "an IP address") from None
    return entry


def _bandwidth(annotations: dict[str, str]) -> Json:
    asked: Json = {}
    for annotation, direction in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if text := annotations.get(annotation):
            asked[f"{direction}Rate"] = rate_bits(text, f"config.annotations[{annotation}]")
            asked[f"{direction}Burst"] = BURST_BITS
    return asked


def _dns(dns: Dns | None) -> Json:
    if dns is None:
        return {}
    parts = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    return {name: value for name, value in parts.items() if value}
