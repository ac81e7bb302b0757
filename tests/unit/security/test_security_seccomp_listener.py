import errno
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.errors import Invalid
from criollo.oci.runtime_spec import Seccomp, Syscall
from criollo.security.capabilities import DEFAULT
from criollo.security.seccomp_default import default_profile
from criollo.security.seccomp_listener import arrived, heard
from criollo.security.seccomp_rules import ALLOW, ERRNO, NOTIFY, Target


def profile(*rules: Syscall, flags: tuple[str, ...] = ()) -> Seccomp:
    return Seccomp(default_action=ERRNO, syscalls=rules, flags=flags)


def test_refusals_are_heard_and_nothing_else_is() -> None:
    rules = (
        Syscall(names=("read",), action=ALLOW),
        Syscall(names=("mount",), action=ERRNO),
        Syscall(names=("clone3",), action=ERRNO, errno_ret=errno.ENOSYS),
        Syscall(names=("reboot",), action="SCMP_ACT_KILL_PROCESS"),
        Syscall(names=("chmod",), action=ERRNO, errno_ret=errno.EOPNOTSUPP),
    )
    made = heard(profile(*rules, flags=("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG")), "/run/x")
    assert [rule.action for rule in made.syscalls] == [ALLOW, NOTIFY, ERRNO, NOTIFY, NOTIFY]
    assert all(rule.errno_ret is None for rule in made.syscalls if rule.action == NOTIFY)
    assert (made.default_action, made.listener_path, made.flags) == (ERRNO, "/run/x", ("SECCOMP_FILTER_FLAG_LOG",))
    assert json.loads(made.listener_metadata) == {"chmod": errno.EOPNOTSUPP}


def test_of_the_built_in_profile_swapoff_is_heard_and_clone3_is_not() -> None:
    made = heard(default_profile().compile(Target(capabilities=frozenset(DEFAULT), machine="x86_64", kernel=(6, 1))), "/run/x")
    told = {name for rule in made.syscalls if rule.action == NOTIFY for name in rule.names}
    assert "swapoff" in told
    assert told.isdisjoint({"clone3", "read", "write", "close"})
    assert made.listener_metadata == ""


def test_what_a_runtime_says_is_read() -> None:
    said = b'{"ociVersion":"1.0","fds":["other","seccompFd"],"pid":1,"metadata":"{\\"chmod\\":95,\\"x\\":-1}","state":{}}'
    assert arrived(said, 2) == (1, {"chmod": 95})


@pytest.mark.parametrize(
    ("said", "count"),
    [
        (b"", 1),
        (b"[]", 1),
        (b"{}", 0),
        (b'{"fds":["seccompFd"]}', 0),
        (b'{"fds":["seccompFd","seccompFd"]}', 2),
        (b'{"fds":["seccompFd"],"metadata":"["}', 1),
        (b'{"fds":"seccompFd"}', 1),
        (b'{"fds":["\xff"]}', 1),
    ],
)
def test_other_words_are_refused(said: bytes, count: int) -> None:
    with pytest.raises(Invalid, match="process state"):
        arrived(said, count)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_give_a_place_or_one_error(said: bytes, count: int) -> None:
    try:
        at, codes = arrived(said, count)
    except Invalid:
        return
    assert at < count
    assert all(0 < code < 4096 for code in codes.values())
