"""The text of the AppArmor profile that containers run under by default, made from tables.

Everything is allowed at first: files, capabilities, the network, unmounting. What the profile takes away again is what a
container that has become root could harm the node with: mounts, and writing to those places of /proc and /sys that belong to
the host. A file system of the host that was mounted with all its rights, a kernel bug, a capability too many then do not
suffice alone. It allows and denies what the default profiles of containers/common and containerd do, except that a name is
compared whole: theirs leave out names that share a letter with an exception.

Source: apparmor.d(5).
"""

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

NAME: Final = "crio-default"

_ALLOWED: Final = ("network", "unix", "capability", "file", "umount")
_WRITE: Final = "w"
_CHANGE: Final = "wklx"  # write, lock, link, execute
_ALL: Final = "rwklx"
_RUNTIMES: Final = ("crun*", "runc", "youki")  # where a distribution confines these, they are not `unconfined`
_SIGNALS: Final = "signal (receive) peer"


class _Except(NamedTuple):
    """What is taken away below a directory, except from names that begin with `prefix`."""

    directory: str
    prefix: str
    access: str
    why: str


_BUT: Final = (
    _Except("/proc/sys/", "kernel/shm", _WRITE, "sysctls of the host; those of shared memory are the pod's own"),
    _Except("/sys/", "fs/cgroup", _CHANGE, "devices and the kernel; cgroups may be delegated"),
)
_DENIED: Final = (
    ("/proc/*", _WRITE, "switches of the kernel"),
    ("/proc/[^0-9s]*/**", _WRITE, "bus, driver, irq and their like; processes have numbers"),
    ("/proc/s[^y]*/**", _WRITE, "the same; /proc/sys has rules of its own"),
    ("/proc/sy[^s]*/**", _WRITE, "the same"),
    ("/proc/sys[^/]*/**", _WRITE, "the same"),
    ("/proc/{s,sy}/**", _WRITE, "the same"),
    ("/proc/{kcore,kmem,mem,sysrq-trigger}", _ALL, "memory of the host, and the switch that reboots it"),
    ("/sys/firmware/**", _ALL, "firmware variables"),
    ("/sys/kernel/security/**", _ALL, "the policy itself"),
    ("/sys/devices/virtual/powercap/**", _ALL, "power counters tell of what others compute"),
)


class Dialect(NamedTuple):
    """What the node's parser has: the file `abi/3.0`, which pins the meaning of the rules to one kernel interface."""

    has_abi: bool = False


def text(dialect: Dialect, name: str = NAME) -> str:
    """The profile as apparmor_parser(8) takes it."""
    head = ["abi <abi/3.0>,"] if dialect.has_abi else []
    return "\n".join([*head, f"profile {name} flags=(attach_disconnected,mediate_deleted) {{", *_rules(name), "}", ""])


def digest(profile: str) -> str:
    """What tells one version of the text from another."""
    return hashlib.sha256(profile.encode()).hexdigest()


def all_but(prefix: str) -> Iterator[str]:
    """Patterns that together match each name, however deep, that does not begin with `prefix` (without glob characters)."""
    for at, letter in enumerate(prefix):
        kept = prefix[:at]
        yield f"{kept}[^{letter}]**"
        if kept and not kept.endswith("/"):
            yield kept  # a name that ends here


def _rules(name: str) -> Iterator[str]:
    yield from (f"  {rule}," for rule in _ALLOWED)
    yield f"  {_SIGNALS}=unconfined,  # the node's own processes end containers"
    yield f"  signal (send,receive) peer={name},"
    yield from (f"  {_SIGNALS}={{/usr/bin/,/usr/sbin/,}}{runtime}," for runtime in _RUNTIMES)
    yield f"  ptrace (trace,read,tracedby,readby) peer={name},  # ps and debuggers among themselves"
    yield "  deny mount,"
    for pattern, access, why in _DENIED:
        yield f"  deny {pattern} {access},  # {why}"
    for rule in _BUT:
        yield f"  # {rule.why}"
        for pattern in all_but(rule.prefix):
            yield f"  deny {rule.directory}{pattern} {rule.access},"
