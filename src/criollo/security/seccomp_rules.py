"""The parts every seccomp profile is made of: machines, actions, comparisons, and what a profile is compiled for.

Source: OCI runtime-spec, config-linux.md, Seccomp; seccomp(2); libseccomp, seccomp_rule_add(3).
"""

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec

from criollo.errors import Invalid
from criollo.oci.runtime_spec import Seccomp, SeccompArg

ALLOW: Final = "SCMP_ACT_ALLOW"
ERRNO: Final = "SCMP_ACT_ERRNO"
NOTIFY: Final = "SCMP_ACT_NOTIFY"
ACTIONS: Final = frozenset(
    {
        ALLOW,
        ERRNO,
        NOTIFY,
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    }
)
WITH_ERRNO: Final = frozenset({ERRNO, "SCMP_ACT_TRACE"})
OPERATORS: Final = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
FLAGS: Final = frozenset(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
MAX_ERRNO: Final = 4095  # linux/err.h
LOWER: Final = 0xFFFFFFFF

# By uname -m: what a process may call on such a kernel, the machine's own first, and the name in Go's words.
ARCHITECTURES: Final = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "i686": ("SCMP_ARCH_X86",),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "armv7l": ("SCMP_ARCH_ARM",),
    "armv8l": ("SCMP_ARCH_ARM",),
    "riscv64": ("SCMP_ARCH_RISCV64",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
}
GO_NAMES: Final = {"x86_64": "amd64", "i686": "386", "aarch64": "arm64", "armv7l": "arm", "armv8l": "arm"}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a profile is compiled for: the bounding set of the container, `uname -m`, major and minor kernel version."""

    capabilities: frozenset[str]
    machine: str
    kernel: tuple[int, int]


class Compilable(Protocol):
    """A profile that has been read."""

    def compile(self, target: Target) -> Seccomp:
        """The `linux.seccomp` of a container."""
        ...


def architectures(machine: str) -> tuple[str, ...]:
    """The architectures of a filter; empty for a machine that is not known: runtimes then take their own."""
    return ARCHITECTURES.get(machine, ())


def parse_kernel(text: str, field: str) -> tuple[int, int]:
    """A kernel version: `4.8` or `5.10.3`, of which two numbers count.

    Raises:
        Invalid: something else.
    """
    numbers = text.split(".")
    if len(numbers) not in (2, 3) or not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in numbers):
        raise Invalid(field, text, "a kernel version such as 4.8")
    return int(numbers[0]), int(numbers[1])


def equals(at: int, mask: int, value: int) -> SeccompArg:
    """The comparison `argument & mask == value`."""
    return SeccompArg(index=at, value=mask, value_two=value, op="SCMP_CMP_MASKED_EQ")


def within(at: int, ranges: Iterable[tuple[int, int]]) -> Iterator[SeccompArg]:
    """Comparisons, any of which holds when the lower 32 bits of an argument lie in one of the ranges.

    Plain comparisons see all 64 bits of a register, and a kernel that takes an int sees half of them: 1 << 32 | 40 is not 40
    to a filter, and is 40 to socket(2). So a range is cut into blocks that share their upper bits.
    """
    for first, last in ranges:
        while first <= last:
            size = first & -first or 1 << 32
            while first + size - 1 > last:
                size >>= 1
            yield equals(at, LOWER & ~(size - 1), first)
            first += size


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """`0-37 39 0x40` as pairs of first and last."""
    pairs = (word.partition("-") for word in text.split())
    return [(int(first, 0), int(last or first, 0)) for first, _, last in pairs]
