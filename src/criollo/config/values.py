"""Values that a configuration writes as text: durations, sizes, sysctls, ulimits, devices, CPU lists.

Each is parsed once, where the file is read; inside they are typed. The parsers are pure and take text of any shape:
the answer is a value or `Invalid` with the field they were given.
"""

import re
from typing import Final

import msgspec

from criollo.errors import Invalid
from criollo.wire.bytesizes import parse_bytes
from criollo.wire.durations import parse_seconds

UNLIMITED: Final = (1 << 64) - 1  # RLIM_INFINITY of 64-bit Linux, include/uapi/linux/resource.h
_LARGEST: Final = (1 << 63) - 1
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_SYSCTL_NAME: Final = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-zA-Z0-9]([-_a-zA-Z0-9]*[a-zA-Z0-9])?)*")
# The sysctls that the kernel keeps per namespace; any other would change the whole node.
_NAMESPACED: Final = ("kernel.shm", "kernel.msg", "fs.mqueue.", "net.")
ULIMIT_NAMES: Final = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
# include/uapi/linux/capability.h, in the order of their numbers.
CAPABILITIES: Final = tuple(
    """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE""".split()
)


class Duration(msgspec.Struct, frozen=True):
    """A length of time, with the text it was written as."""

    seconds: float
    text: str

    @classmethod
    def parse(cls, text: str, field: str = "duration") -> "Duration":
        """A duration as Go writes it: `90s`, `1m30s`, `250ms`, `0`; the empty text counts 0.

        Raises:
            Invalid: not of this form, or longer than 290 years.
        """
        seconds = parse_seconds(text) if text else 0.0
        if seconds is None:
            raise Invalid(field, text, "a duration like '90s', '1m30s' or '0'")
        return cls(seconds, text)


class Size(msgspec.Struct, frozen=True):
    """A number of bytes, with the text it was written as; the empty text means not set and counts 0."""

    bytes: int
    text: str

    @classmethod
    def parse(cls, text: str, field: str = "size") -> "Size":
        """A size with an optional unit, all of them powers of 1024: `12MiB`, `512k`, `1048576`.

        Raises:
            Invalid: not of this form, negative, or beyond 63 bits.
        """
        if not text:
            return cls(0, text)
        count = parse_bytes(text)
        if count is None or count > _LARGEST:
            raise Invalid(field, text, "a size like '12MiB', '512k' or a number of bytes")
        return cls(count, text)


class Ulimit(msgspec.Struct, frozen=True):
    """A resource limit; `name` as in `RLIMIT_NOFILE`, `UNLIMITED` for no limit."""

    name: str
    soft: int
    hard: int


class DeviceSpec(msgspec.Struct, frozen=True):
    """A device of the host as containers get it; `access` is a subset of `rwm`."""

    source: str
    target: str
    access: str


def parse_ulimit(text: str, field: str = "ulimit") -> Ulimit:
    """`nofile=1024:2048`, or `nofile=1024` for both limits; -1 is no limit. Raises `Invalid`."""
    name, _, limits = text.partition("=")
    soft_text, colon, hard_text = limits.partition(":")
    if name not in ULIMIT_NAMES:
        raise Invalid(field, text, f"<name>=<soft>:<hard> with a name of: {', '.join(sorted(ULIMIT_NAMES))}")
    soft = _limit(soft_text, field, text)
    hard = _limit(hard_text, field, text) if colon else soft
    if soft > hard:
        raise Invalid(field, text, f"ulimit soft limit must be less than or equal to hard limit: {soft_text} > {hard_text}")
    return Ulimit(f"RLIMIT_{name.upper()}", soft, hard)


def _limit(text: str, field: str, whole: str) -> int:
    if text == "-1":
        return UNLIMITED
    if not _NUMBER.fullmatch(text) or int(text) > UNLIMITED:
        raise Invalid(field, whole, "<name>=<soft>:<hard> with limits from 0 to 2^64-1, or -1 for none")
    return int(text)


def parse_sysctl(text: str, field: str = "sysctl") -> tuple[str, str]:
    """`net.ipv4.ip_forward=1` as name and value; only sysctls that belong to a namespace.

    A value may hold spaces (`0 2147483647`), but nothing that starts another entry. Raises `Invalid`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(field, text, "name=value")
    if name != name.strip() or value != value.strip():
        raise Invalid(field, text, "name=value without spaces around '=' and at the ends")
    if not _SYSCTL_NAME.fullmatch(name) or ".." in name:
        raise Invalid(field, text, "a sysctl name like net.ipv4.ip_forward before '='")
    if any(c in "+=" or (c != "\t" and not c.isprintable()) for c in value):
        raise Invalid(field, text, "a value without '+', '=' and control characters")
    dotted = name.replace("/", ".")
    if dotted != "kernel.sem" and not dotted.startswith(_NAMESPACED):
        raise Invalid(field, text, f"a sysctl of a namespace: kernel.sem, {', '.join(p + '*' for p in _NAMESPACED)}")
    return name, value


def parse_device(text: str, field: str = "device") -> DeviceSpec:
    """`/dev/sdc`, `/dev/sdc:/dev/xvdc`, `/dev/sdc:rw` or `/dev/sdc:/dev/xvdc:rwm`. Raises `Invalid`."""
    parts = text.split(":")
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) == 2:
        target, access = (parts[1], access) if parts[1].startswith("/") else (target, parts[1])
    elif len(parts) == 3:
        target, access = parts[1], parts[2]
    if len(parts) > 3 or not _is_device_path(source) or not _is_device_path(target):
        raise Invalid(field, text, "<device on host>[:<device in container>][:<rwm>] below /dev/; this is not a valid device")
    if not access or len(set(access)) != len(access) or not set(access) <= set("rwm"):
        raise Invalid(field, text, f"access out of r, w and m, each once; invalid device mode: {access}")
    return DeviceSpec(source, target, access)


def _is_device_path(path: str) -> bool:
    return path.startswith("/dev/") and path.isprintable() and ".." not in path.split("/") and not path.endswith("/")


def parse_cpus(text: str, field: str = "cpuset") -> frozenset[int]:
    """A Linux CPU list: `0-3,8`. Raises `Invalid`."""
    cpus: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise Invalid(field, text, "a list of CPUs like '0-3,8'")
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def parse_capability(text: str, field: str = "capability") -> str:
    """A capability by name, with or without `CAP_`, as the runtime spec writes it: `CAP_CHOWN`. Raises `Invalid`."""
    name = text.upper().removeprefix("CAP_")
    if name not in CAPABILITIES:
        raise Invalid(field, text, "a capability like CHOWN; capabilities(7) lists them")
    return f"CAP_{name}"
