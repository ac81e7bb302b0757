"""Profile files of others: the runtime-spec's JSON, and the richer form of Docker and containers/common.

A rule holds when all of its `includes` do and none of its `excludes`; capabilities are those of the container's bounding set,
architectures are in Go's words. Errors name the field within the file. What a node cannot serve, a listener, is refused.
Source: OCI runtime-spec, config-linux.md, Seccomp; moby, profiles/seccomp; containers/common, pkg/seccomp.
"""

import errno
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from criollo.errors import Invalid, Unsupported
from criollo.oci import document
from criollo.oci.runtime_spec import Seccomp, SeccompArg, Syscall
from criollo.security.seccomp_rules import (
    ACTIONS,
    ARCHITECTURES,
    FLAGS,
    GO_NAMES,
    MAX_ERRNO,
    NOTIFY,
    OPERATORS,
    WITH_ERRNO,
    Target,
    architectures,
    parse_kernel,
)

MAX_FILE_BYTES: Final = 1 << 20
MAX_RULES: Final = 20_000  # names times comparisons, before includes and excludes

_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_ARCHITECTURE: Final = re.compile(r"SCMP_ARCH_[A-Z0-9_]{1,32}")


class _Part(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    pass


class _Arg(_Part, frozen=True, kw_only=True):
    index: int
    value: int = 0
    value_two: int = 0
    op: str


class _Condition(_Part, frozen=True, kw_only=True):
    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: str = ""


class _Rule(_Part, frozen=True, kw_only=True):
    name: str = ""
    names: tuple[str, ...] = ()
    action: str
    errno_ret: int | None = None
    errno: str = ""
    args: tuple[_Arg, ...] = ()
    includes: _Condition = _Condition()
    excludes: _Condition = _Condition()


class _ArchMap(_Part, frozen=True, kw_only=True):
    architecture: str
    sub_architectures: tuple[str, ...] = ()


class _File(_Part, frozen=True, kw_only=True):
    default_action: str
    default_errno_ret: int | None = None
    default_errno: str = ""
    architectures: tuple[str, ...] = ()
    arch_map: tuple[_ArchMap, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[_Rule, ...] = ()


class ProfileFile(msgspec.Struct, frozen=True):
    """A checked profile."""

    content: _File

    def compile(self, target: Target) -> Seccomp:
        """The filter of a container with these capabilities, on this machine and kernel."""
        file = self.content
        return Seccomp(
            default_action=file.default_action,
            default_errno_ret=_code(file.default_errno_ret, file.default_errno),
            architectures=_architectures(file, target.machine),
            flags=file.flags,
            syscalls=tuple(
                Syscall(
                    names=rule.names or (rule.name,),
                    action=rule.action,
                    errno_ret=_code(rule.errno_ret, rule.errno),
                    args=tuple(SeccompArg(index=a.index, value=a.value, value_two=a.value_two, op=a.op) for a in rule.args),
                )
                for rule in file.syscalls
                if _holds(rule, target)
            ),
        )


def parse(raw: bytes, what: str) -> ProfileFile:
    """The profile in a file; `what` names it in errors.

    Raises:
        Invalid: no JSON, or a field that no runtime takes; the message has its place.
        Unsupported: it wants a listener.
    """
    value = document.parse_object(raw, what=what, limit_bytes=MAX_FILE_BYTES)
    document.refuse_case_twins(value, _known(_File), what=what)
    file = document.convert(_without_nulls(value), _File, what=what)
    _check_action(file.default_action, file.default_errno_ret, file.default_errno, f"{what}.defaultAction")
    if file.listener_path:
        raise Unsupported(f"cannot use {what}: listenerPath hands system calls to another program, which is not supported")
    if file.architectures and file.arch_map:
        raise Invalid(f"{what}.archMap", "archMap and architectures", "one of them")
    for name in (*file.architectures, *(name for one in file.arch_map for name in (one.architecture, *one.sub_architectures))):
        if not _ARCHITECTURE.fullmatch(name):
            raise Invalid(f"{what}.architectures", name, "an architecture such as SCMP_ARCH_X86_64")
    for flag in file.flags:
        if flag not in FLAGS:
            raise Invalid(f"{what}.flags", flag, f"one of {', '.join(sorted(FLAGS))}")
    for at, rule in enumerate(file.syscalls):
        _check_rule(rule, f"{what}.syscalls[{at}]")
    if sum(max(1, len(rule.names)) * max(1, len(rule.args)) for rule in file.syscalls) > MAX_RULES:
        raise Invalid(f"{what}.syscalls", "more", f"at most {MAX_RULES} rules")
    return ProfileFile(file)


def _check_rule(rule: _Rule, where: str) -> None:
    if bool(rule.name) == bool(rule.names):
        raise Invalid(f"{where}.names", [rule.name, *rule.names], "either name or names")
    for name in rule.names or (rule.name,):
        if not _NAME.fullmatch(name):
            raise Invalid(f"{where}.names", name, "names of system calls")
    _check_action(rule.action, rule.errno_ret, rule.errno, f"{where}.action")
    if len(rule.args) > 6:
        raise Invalid(f"{where}.args", len(rule.args), "at most 6")
    for arg in rule.args:
        if not 0 <= arg.index <= 5:
            raise Invalid(f"{where}.args.index", arg.index, "a number from 0 to 5")
        if not (0 <= arg.value < 1 << 64 and 0 <= arg.value_two < 1 << 64):
            raise Invalid(f"{where}.args.value", (arg.value, arg.value_two), "numbers of 64 bits")
        if arg.op not in OPERATORS:
            raise Invalid(f"{where}.args.op", arg.op, f"one of {', '.join(sorted(OPERATORS))}")
    for name in ("includes", "excludes"):
        version = getattr(rule, name).min_kernel
        if version:
            parse_kernel(version, f"{where}.{name}.minKernel")


def _check_action(action: str, number: int | None, name: str, field: str) -> None:
    if action not in ACTIONS:
        raise Invalid(field, action, f"one of {', '.join(sorted(ACTIONS))}")
    if action == NOTIFY:
        raise Unsupported(f"cannot use {field} {NOTIFY}: handing system calls to another program is not supported")
    if name and not hasattr(errno, name):
        raise Invalid(field, name, "a name such as EPERM as errno")
    if number is not None and not 0 <= number <= MAX_ERRNO:
        raise Invalid(field, number, f"an errnoRet from 0 to {MAX_ERRNO}")
    if (number is not None or name) and action not in WITH_ERRNO:
        raise Invalid(field, action, "SCMP_ACT_ERRNO or SCMP_ACT_TRACE with an errno")


def _code(number: int | None, name: str) -> int | None:
    """A name wins over the number, as it does elsewhere: it means the same on every architecture."""
    return int(getattr(errno, name)) if name else number


def _architectures(file: _File, machine: str) -> tuple[str, ...]:
    if not file.arch_map:
        return file.architectures
    native = ARCHITECTURES.get(machine, ("",))[0]
    for one in file.arch_map:
        if one.architecture == native:
            return (one.architecture, *one.sub_architectures)
    return architectures(machine)[:1]


def _holds(rule: _Rule, target: Target) -> bool:
    """One match of an exclude is enough to leave a rule out; includes must match all."""
    here = GO_NAMES.get(target.machine, target.machine)
    out, needed = rule.excludes, rule.includes
    if here in out.arches or not target.capabilities.isdisjoint(out.caps):
        return False
    if out.min_kernel and target.kernel >= parse_kernel(out.min_kernel, "minKernel"):
        return False
    if needed.arches and here not in needed.arches:
        return False
    if needed.min_kernel and target.kernel < parse_kernel(needed.min_kernel, "minKernel"):
        return False
    return target.capabilities.issuperset(needed.caps)


def _known(kind: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def _without_nulls(value: Any) -> Any:
    """Programs in Go write null for what they leave out."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(member) for key, member in _given(value)}
    return [_without_nulls(member) for member in value] if isinstance(value, list) else value


def _given(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, member) for key, member in value.items() if member is not None)
