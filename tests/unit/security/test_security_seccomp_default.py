"""The built-in profile: what it decides, call by call, and how it stands to what others have."""

import ctypes
import json
from pathlib import Path

import pytest
from support.bpf import AARCH64, ARM, X32_BIT, X86, X86_64, decide

from criollo.linux import seccomp
from criollo.security.capabilities import DEFAULT, KNOWN
from criollo.security.seccomp import program_of
from criollo.security.seccomp_default import DefaultProfile, default_profile
from criollo.security.seccomp_profile import parse
from criollo.security.seccomp_rules import Target

OTHERS = Path("/usr/share/containers/seccomp.json")  # Debian's golang-github-containers-common
ARCHITECTURES = (X86_64, X86, AARCH64, ARM)

needs_library = pytest.mark.skipif(not seccomp.is_available(), reason="libseccomp2 is not installed")

# Names in kernel tables for which no kernel has code; they get ENOSYS from us as from it.
NEVER_MADE = frozenset(
    (
        "afs_syscall break ftime getpmsg gtty idle lock mpx prof profil putpmsg security stty tuxcall ulimit usr26 usr32 "
        "vserver"
    ).split()
)

# What Debian's containers/common 0.50 allows a container with the default capabilities, and we do not, and the reverse.
STRICTER = {
    "clone3 setns unshare": "new namespaces need CAP_SYS_ADMIN, as CRI-O has it",
    "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root umount umount2": (
        "mounting is for CAP_SYS_ADMIN: the kernel wants it, and user namespaces that would give it are refused"
    ),
    "get_mempolicy mbind set_mempolicy": "placing memory is for CAP_SYS_NICE",
    "keyctl": "keyrings are not divided by container",
    "pidfd_getfd": "taking descriptors of others is for CAP_SYS_PTRACE",
    "reboot": "for CAP_SYS_BOOT",
    "syslog": "for CAP_SYSLOG: the kernel's log is everybody's",
}
LOOSER = {
    "io_pgetevents": "io_getevents with a signal mask, as harmless",
}


def numbers(architecture: int) -> dict[str, int]:
    library = ctypes.CDLL(seccomp.LIBRARY)
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    found = {}
    for number in (*range(600), *range(0xF0000, 0xF0010)):
        name = library.seccomp_syscall_resolve_num_arch(architecture, number)
        if name:
            found[ctypes.string_at(name).decode()] = number
    return found


def target(*added: str, machine: str = "x86_64", kernel: tuple[int, int] = (6, 1)) -> Target:
    return Target(capabilities=frozenset((*DEFAULT, *added)), machine=machine, kernel=kernel)


def outcome(asked: Target, architecture: int, name: str, *args: int) -> str:
    return decide(program_of(default_profile().compile(asked)), architecture, numbers(architecture)[name], *args)


def names(profile: DefaultProfile) -> list[str]:
    return [name for group in (*profile.group, *profile.refused) for name in group.names.split()]


def test_every_name_stands_in_one_group() -> None:
    assert sorted(names(default_profile())) == sorted(set(names(default_profile())))


def test_every_group_names_capabilities_that_exist() -> None:
    assert all(group.capabilities <= set(KNOWN) for group in default_profile().group)


@needs_library
def test_every_call_that_libseccomp_knows_is_decided() -> None:
    known = {name for architecture in ARCHITECTURES for name in numbers(architecture)}
    assert known - set(names(default_profile())) == NEVER_MADE & known


@needs_library
@pytest.mark.parametrize("architecture", [X86_64, X86])
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("read", (), "ALLOW"),
        ("ptrace", (), "ALLOW"),
        ("clone", (0x3D0F00,), "ALLOW"),
        ("clone", (0x10000011,), "EPERM"),
        ("clone", (0x00020011,), "EPERM"),
        ("clone", (0x7E020011,), "EPERM"),
        ("clone3", (), "ENOSYS"),
        ("unshare", (0,), "EPERM"),
        ("setns", (), "EPERM"),
        ("mount", (), "EPERM"),
        ("keyctl", (), "EPERM"),
        ("bpf", (), "EPERM"),
        ("perf_event_open", (), "EPERM"),
        ("io_uring_setup", (), "EPERM"),
        ("userfaultfd", (), "EPERM"),
        ("personality", (0,), "ALLOW"),
        ("personality", (0x20008,), "ALLOW"),
        ("personality", (0xFFFFFFFF,), "ALLOW"),
        ("personality", (0x40000,), "EPERM"),
        ("personality", (0x4,), "ENOSYS"),
    ],
)
def test_default_container_may(architecture: int, name: str, args: tuple[int, ...], expected: str) -> None:
    assert outcome(target(), architecture, name, *args) == expected


@needs_library
@pytest.mark.parametrize("upper", [0, 1 << 32, 0xFFFFFFFF << 32])
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (1, "ALLOW"),
        (2, "ALLOW"),
        (10, "ALLOW"),
        (16, "ALLOW"),
        (37, "ALLOW"),
        (39, "ALLOW"),
        (45, "ALLOW"),
        (38, "EPERM"),
        (40, "EPERM"),
        (64, "ENOSYS"),
        (4294967295, "ENOSYS"),
    ],
)
def test_socket_families_are_judged_by_the_half_that_the_kernel_reads(family: int, upper: int, expected: str) -> None:
    assert outcome(target(), X86_64, "socket", family | upper) == expected


@needs_library
@pytest.mark.parametrize(
    ("capability", "opened"),
    [
        ("CAP_SYS_ADMIN", "mount umount2 unshare setns clone3 bpf perf_event_open quotactl fsopen open_tree syslog"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_SYS_TIME", "settimeofday clock_settime"),
        ("CAP_SYS_BOOT", "reboot"),
        ("CAP_SYS_MODULE", "init_module finit_module delete_module"),
        ("CAP_SYS_NICE", "mbind set_mempolicy move_pages"),
        ("CAP_SYS_PTRACE", "kcmp process_madvise pidfd_getfd"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYSLOG", "syslog"),
        ("CAP_SYS_RAWIO", "ioperm iopl"),
    ],
)
def test_capability_opens_its_calls_and_no_others(capability: str, opened: str) -> None:
    plain = program_of(default_profile().compile(target()))
    more = program_of(default_profile().compile(target(capability)))
    found = {
        name
        for name, number in numbers(X86_64).items()
        if name not in ("clone", "socket", "personality") and decide(plain, X86_64, number) != decide(more, X86_64, number)
    }
    assert found >= set(opened.split())
    assert found == {n for g in default_profile().group if capability in g.capabilities for n in g.names.split()} & found


@needs_library
def test_new_namespaces_by_clone_need_their_capability() -> None:
    assert outcome(target("CAP_SYS_ADMIN"), X86_64, "clone", 0x10000011) == "ALLOW"


@needs_library
def test_ptrace_needs_its_capability_on_kernels_where_it_undoes_filters() -> None:
    assert outcome(target(kernel=(4, 7)), X86_64, "ptrace") == "EPERM"
    assert outcome(target("CAP_SYS_PTRACE", kernel=(4, 7)), X86_64, "ptrace") == "ALLOW"


@needs_library
@pytest.mark.parametrize("number", [600, 9999, -1])
def test_calls_newer_than_the_list_are_not_there(number: int) -> None:
    assert decide(program_of(default_profile().compile(target())), X86_64, number) == "ENOSYS"


@needs_library
def test_sub_architectures_are_judged_alike() -> None:
    program = program_of(default_profile().compile(target()))
    assert decide(program, X86_64, X32_BIT | numbers(X86_64)["unshare"]) == "EPERM"
    assert decide(program, X86_64, X32_BIT | numbers(X86_64)["read"]) == "ALLOW"
    assert decide(program, AARCH64, numbers(AARCH64)["read"]) == "0x0"


@needs_library
@pytest.mark.parametrize("architecture", [AARCH64, ARM])
@pytest.mark.parametrize(("name", "expected"), [("read", "ALLOW"), ("unshare", "EPERM"), ("mount", "EPERM")])
def test_arm_machines_have_it_too(architecture: int, name: str, expected: str) -> None:
    assert outcome(target(machine="aarch64"), architecture, name) == expected


def test_unknown_machine_leaves_the_architecture_to_the_runtime() -> None:
    assert default_profile().compile(target(machine="loongarch64")).architectures == ()


@needs_library
@pytest.mark.skipif(not OTHERS.is_file(), reason="golang-github-containers-common is not installed")
def test_differences_to_what_others_allow_are_known() -> None:
    theirs = parse(OTHERS.read_bytes(), "seccomp.json").compile(target())
    ours = default_profile().compile(target())
    first, second = program_of(theirs), program_of(ours)
    stricter, looser = set(), set()
    known = {name for rule in json.loads(OTHERS.read_bytes())["syscalls"] for name in rule["names"]}
    for architecture in (X86_64, X86):
        for name, number in numbers(architecture).items():
            if name not in known:  # newer than their list
                continue
            allowed = decide(first, architecture, number) == "ALLOW", decide(second, architecture, number) == "ALLOW"
            if allowed == (True, False):
                stricter.add(name)
            elif allowed == (False, True):
                looser.add(name)
    assert stricter == {name for names in STRICTER for name in names.split()}
    assert looser == {name for names in LOOSER for name in names.split()}
