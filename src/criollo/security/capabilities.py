"""Which capabilities a container gets: one function decides all five sets (threats R9).

Bounding is what was asked for; for root, effective and permitted equal it. A process of another user ends with neither:
exec would clear them anyway, and a set that is never granted cannot leak (CVE-2022-27652). Inheritable and ambient are
empty unless the configuration or the request asks. Names are accepted with and without `CAP_`, in any case.
Source: capabilities(7); CRI v1, Capability; linux/capability.h.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from criollo.errors import Invalid, Unsupported
from criollo.model.container import Capabilities

KNOWN: Final = tuple(  # by number, linux/capability.h
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
        "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
        "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
_NUMBER: Final = {name: number for number, name in enumerate(KNOWN)}

DEFAULT: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_KILL",
)

_ALL: Final = "ALL"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the node gives: `defaults` as configured, `held` is the daemon's own bounding set."""

    defaults: tuple[str, ...] = DEFAULT
    add_inheritable: bool = False
    held: frozenset[str] = frozenset(KNOWN)


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """The five sets, each ordered by capability number, and configured defaults that the daemon cannot hand on."""

    bounding: tuple[str, ...]
    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    ambient: tuple[str, ...]
    withheld: tuple[str, ...] = ()


def decide(asked: Capabilities, *, policy: Policy, privileged: bool, is_root: bool) -> Granted:
    """The capabilities of a container's first process.

    `ALL` in `add` means all that the daemon holds; `ALL` in `drop` takes these and the defaults away. Single names are then
    added and dropped on top, and drop wins. A privileged container has all that the daemon holds, whatever was asked.

    Raises:
        Invalid: a name that no kernel knows.
        Unsupported: a capability asked by name that the daemon itself does not hold.
    """
    ambient: set[str] = set()
    withheld: set[str] = set()
    if privileged:
        bounding = set(policy.held)
    else:
        bounding, withheld = _asked(asked, policy)
        dropped = _names(asked.drop, "capabilities.drop")
        ambient = _held(_names(asked.add_ambient, "capabilities.add_ambient"), policy) - dropped
        bounding = (bounding | ambient) - dropped
    effective = bounding if is_root else ambient
    return Granted(
        bounding=_ordered(bounding),
        effective=_ordered(effective),
        permitted=_ordered(effective),
        inheritable=_ordered(bounding if policy.add_inheritable else ambient),
        ambient=_ordered(ambient),
        withheld=_ordered(withheld),
    )


def parse(name: str, field: str) -> str:
    """The full name: `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are one.

    Raises:
        Invalid: no such capability.
    """
    upper = name.upper() if name.isascii() else name
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in _NUMBER:
        raise Invalid(field, name, "a capability such as NET_ADMIN, or ALL")
    return full


def from_mask(mask: int) -> frozenset[str]:
    """The names in a bit mask as /proc/PID/status shows it; bits this list does not know are left out."""
    return frozenset(name for number, name in enumerate(KNOWN) if mask >> number & 1)


def _asked(asked: Capabilities, policy: Policy) -> tuple[set[str], set[str]]:
    added = _held(_names(asked.add, "capabilities.add"), policy)
    if _has_all(asked.drop):  # before `add`: who says both wants what is named and no more
        return added, set()
    if _has_all(asked.add):
        return set(policy.held), set()
    defaults = _names(policy.defaults, "default_capabilities")
    return added | (defaults & policy.held), defaults - policy.held


def _names(names: Iterable[str], field: str) -> set[str]:
    return {parse(name, field) for name in names if name.upper() != _ALL}


def _held(names: set[str], policy: Policy) -> set[str]:
    lacking = names - policy.held
    if lacking:
        raise Unsupported(
            f"cannot grant {', '.join(_ordered(lacking))}: the daemon does not hold it itself; "
            "run the daemon with it, or do not ask for it"
        )
    return names


def _has_all(names: Iterable[str]) -> bool:
    return any(name.upper() == _ALL for name in names)


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=_NUMBER.__getitem__))
