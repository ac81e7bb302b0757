"""libseccomp, by ctypes: from the rules of a runtime spec to the program that the kernel runs. No policy.

Rules are added in their order and with the calls that crun and runc make, so the program decides as theirs does.
Source: seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3); seccomp.h, seccomp-syscalls.h of libseccomp 2.5.
"""

import ctypes
import errno
import functools
import os
from collections.abc import Iterable
from typing import Final, NamedTuple

LIBRARY: Final = "libseccomp.so.2"

_ACTIONS: Final = {  # seccomp.h
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
_OPERATORS: Final = {
    f"SCMP_CMP_{name}": number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}
_UNKNOWN: Final = -1  # __NR_SCMP_ERROR
_MAX_PROGRAM_BYTES: Final = 4096 * 8  # BPF_MAXINSNS, linux/bpf_common.h


class Comparison(NamedTuple):
    """One argument of a call against a value, or against a mask and what is left under it."""

    at: int
    operator: str
    value: int
    second: int = 0


class Rule(NamedTuple):
    """What happens to a call when every comparison holds; `code` is the errno of ERRNO and the message of TRACE."""

    name: str
    action: str
    code: int = errno.EPERM
    comparisons: tuple[Comparison, ...] = ()


class _Compared(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@functools.cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(LIBRARY)
        library.seccomp_init.restype = ctypes.c_void_p
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_release.argtypes = (ctypes.c_void_p,)
        library.seccomp_release.restype = None
        library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
        library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
        library.seccomp_rule_add_array.argtypes = (
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Compared),
        )  # fmt: skip
        library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    except (OSError, AttributeError):
        return None
    return library


def is_available() -> bool:
    """Whether this host has the library."""
    return _library() is not None


@functools.cache
def is_known(name: str) -> bool:
    """Whether the library knows a call by this name, on any architecture; False without the library."""
    library = _library()
    return library is not None and _resolve(library, name) != _UNKNOWN


def program(default: Rule, architectures: Iterable[str], rules: Iterable[Rule]) -> bytes:
    """The filter as the kernel takes it: an array of struct sock_filter. Calls that the library does not know are left out.

    Takes some 20 ms for a usual profile, without holding the interpreter; the default rule's name and comparisons do not count.

    Raises:
        OSError: the library is not there, or refuses the rules.
    """
    library = _library()
    if library is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), LIBRARY)
    context = library.seccomp_init(_action(default))
    if not context:
        raise OSError(errno.EINVAL, "libseccomp refuses the default action", default.action)
    try:
        for name in architectures:
            token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
            _check(library.seccomp_arch_add(context, token) if token else -errno.EINVAL, name, -errno.EEXIST)
        for rule in rules:
            _add(library, context, rule, _action(default))
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: int, rule: Rule, default: int) -> None:
    number, action = _resolve(library, rule.name), _action(rule)
    if number == _UNKNOWN or action == default:
        return
    compared = [_Compared(one.at, _OPERATORS[one.operator], one.value, one.second) for one in rule.comparisons]
    # More than one look at an argument cannot be joined: runtimes take each comparison for a rule of its own.
    at_once = len({one.at for one in rule.comparisons}) == len(compared)
    for group in [compared] if at_once else [[one] for one in compared]:
        array = (_Compared * max(1, len(group)))(*group)
        _check(library.seccomp_rule_add_array(context, action, number, len(group), array), rule.name)


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(context, fd), "export")
        size = os.fstat(fd).st_size
        if not 0 < size <= _MAX_PROGRAM_BYTES or size % 8:
            raise OSError(errno.E2BIG, f"a filter of {size} bytes is none the kernel takes", LIBRARY)
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _action(rule: Rule) -> int:
    if rule.action not in _ACTIONS:
        raise OSError(errno.EINVAL, "libseccomp cannot take this action here", rule.action)
    return _ACTIONS[rule.action] | (rule.code & 0xFFFF if rule.action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0)


def _resolve(library: ctypes.CDLL, name: str) -> int:
    return int(library.seccomp_syscall_resolve_name(name.encode()))


def _check(result: int, what: str, already: int = 0) -> None:
    if result < 0 and result != already:
        raise OSError(-result, os.strerror(-result), what)
