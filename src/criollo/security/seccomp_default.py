"""The profile RuntimeDefault: `seccomp_default.toml`, compiled for a container.

Unknown calls answer ENOSYS, known ones that are not allowed EPERM. The outcome of a call never depends on the order of rules:
those of one call do not overlap, or agree.
"""

import errno
import functools
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from criollo.oci.runtime_spec import Seccomp, SeccompArg, Syscall
from criollo.security.seccomp_rules import ALLOW, ERRNO, Target, architectures, equals, parse_kernel, parse_ranges, within

FILE: Final = Path(__file__).with_name("seccomp_default.toml")


class _Argument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: int
    values: str
    refused: str = ""


class _Flags(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: int
    refused: str


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table [[group]] or [[refused]]; the file says what its keys mean."""

    purpose: str = msgspec.field(name="for")
    names: str
    capabilities: frozenset[str] = frozenset()
    otherwise: str = "EPERM"
    free_since: str = ""
    machines: frozenset[str] = frozenset()
    argument: _Argument | None = None
    flags: _Flags | None = None

    def is_open(self, target: Target) -> bool:
        """Whether the container may make these calls."""
        if not self.capabilities or self.capabilities & target.capabilities:
            return True
        return bool(self.free_since) and target.kernel >= parse_kernel(self.free_since, "free_since")


class DefaultProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    group: tuple[Group, ...]
    refused: tuple[Group, ...]

    def compile(self, target: Target) -> Seccomp:
        """The filter of a container with these capabilities, on this machine and kernel."""
        here = [group for group in self.group if not group.machines or target.machine in group.machines]
        free: list[str] = []
        closed: dict[str, list[str]] = {"EPERM": _names(self.refused)}
        special: list[Syscall] = []
        for group in here:
            names = group.names.split()
            if group.argument is not None:
                special += _by_value(names, group.argument)
            elif group.is_open(target):
                free += names
            elif group.flags is not None:
                special += _by_flags(names, group.flags)
            else:
                closed.setdefault(group.otherwise, []).extend(names)
        return Seccomp(
            default_action=ERRNO,
            default_errno_ret=errno.ENOSYS,
            architectures=architectures(target.machine),
            syscalls=(
                Syscall(names=tuple(free), action=ALLOW),
                *special,
                *(_refuse(names, getattr(errno, code)) for code, names in closed.items()),
            ),
        )


@functools.cache
def default_profile() -> DefaultProfile:
    """The profile that comes with the package."""
    return msgspec.convert(tomllib.loads(FILE.read_text("utf-8")), DefaultProfile)


def _by_value(names: list[str], argument: _Argument) -> Iterator[Syscall]:
    for one in within(argument.at, parse_ranges(argument.values)):
        yield Syscall(names=tuple(names), action=ALLOW, args=(one,))
    yield from _refuse_each(names, within(argument.at, parse_ranges(argument.refused)))


def _by_flags(names: list[str], flags: _Flags) -> Iterator[Syscall]:
    bits = [int(word, 0) for word in flags.refused.split()]
    yield Syscall(names=tuple(names), action=ALLOW, args=(equals(flags.at, functools.reduce(int.__or__, bits), 0),))
    yield from _refuse_each(names, (equals(flags.at, bit, bit) for bit in bits))


def _refuse_each(names: list[str], conditions: Iterable[SeccompArg]) -> Iterator[Syscall]:
    for one in conditions:
        yield Syscall(names=tuple(names), action=ERRNO, errno_ret=errno.EPERM, args=(one,))


def _refuse(names: list[str], code: int) -> Syscall:
    return Syscall(names=tuple(names), action=ERRNO, errno_ret=code)


def _names(groups: Iterable[Group]) -> list[str]:
    return [name for group in groups for name in group.names.split()]
