"""Profiles whose refusals a listener hears of: the rules that refuse become NOTIFY, whoever holds the listener answers.

Left as they are: ENOSYS, by which programs find out what a kernel has (every use of threads in glibc asks for clone3 so), and
the default action, which no kernel hands over. What a refusal answers beyond EPERM travels as the listener's metadata.
Source: OCI runtime-spec, config-linux.md, listenerPath, listenerMetadata.
"""

import errno
from collections.abc import Mapping
from typing import Final

import msgspec

from criollo.errors import Invalid
from criollo.oci.runtime_spec import Seccomp, Syscall
from criollo.security.seccomp_rules import ERRNO, MAX_ERRNO, NOTIFY

FD_NAME: Final = "seccompFd"
KILLS: Final = frozenset({"SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS"})

_ALONE: Final = "SECCOMP_FILTER_FLAG_TSYNC"  # excludes a listener, and is of no use to a process with one thread
_MAX_METADATA: Final = 8192  # runtimes send it in one message of 16 KiB at most


class _ProcessState(msgspec.Struct, frozen=True):
    fds: tuple[str, ...] = ()
    metadata: str = ""


def heard(profile: Seccomp, path: str) -> Seccomp:
    """The profile with a listener behind the socket at `path`."""
    codes = {
        name: rule.errno_ret
        for rule in reversed(profile.syscalls)
        if _is_heard(rule) and rule.errno_ret not in (None, errno.EPERM)
        for name in rule.names
    }
    metadata = msgspec.json.encode(codes).decode() if codes else ""
    return msgspec.structs.replace(
        profile,
        flags=tuple(flag for flag in profile.flags if flag != _ALONE),
        listener_path=path,
        listener_metadata=metadata if len(metadata) <= _MAX_METADATA else "",
        syscalls=tuple(
            msgspec.structs.replace(rule, action=NOTIFY, errno_ret=None) if _is_heard(rule) else rule
            for rule in profile.syscalls
        ),
    )


def arrived(said: bytes, count: int) -> tuple[int, Mapping[str, int]]:
    """Which of `count` descriptors is the listener, and the errnos of calls beyond EPERM.

    Raises:
        Invalid: the runtime's words are not what its specification has.
    """
    try:
        state = msgspec.json.decode(said, type=_ProcessState)
        codes = msgspec.json.decode(state.metadata or "{}", type=dict[str, int])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("process state", str(error), "JSON as the runtime-spec has it") from None
    if len(state.fds) != count or state.fds.count(FD_NAME) != 1:
        raise Invalid("process state fds", f"{state.fds} with {count} descriptors", f"one {FD_NAME}, and as many as are named")
    return state.fds.index(FD_NAME), {name: code for name, code in codes.items() if 0 < code <= MAX_ERRNO}


def _is_heard(rule: Syscall) -> bool:
    return (rule.action == ERRNO and rule.errno_ret != errno.ENOSYS) or rule.action in KILLS
