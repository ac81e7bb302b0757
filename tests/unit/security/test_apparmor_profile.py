"""The text of the default profile: which names its patterns take away, and that it changes when a rule does."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.security import apparmor_profile
from criollo.security.apparmor_profile import NAME, Dialect, all_but, digest, text


def _matches(pattern: str, name: str) -> bool:
    """An AppArmor pattern with `**`, `*`, character classes and alternatives, as apparmor.d(5) has it."""
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            out, at = out + ("." + ("+" if out.endswith("/") else "*")), at + 2
        elif pattern[at] == "*":
            out, at = out + "[^/]" + ("+" if out.endswith("/") else "*"), at + 1
        elif pattern[at] == "[":
            end = pattern.index("]", at) + 1
            out, at = out + pattern[at:end], end
        elif pattern[at] in "{,}":
            out, at = out + {"{": "(", ",": "|", "}": ")"}[pattern[at]], at + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return re.fullmatch(out, name, re.DOTALL) is not None


def _denied(path: str, access: str) -> bool:
    for line in text(Dialect()).splitlines():
        found = re.fullmatch(r"  deny (/\S+) ([rwklx]+),( #.*| {2}#.*)?", line)
        if found and access in found[2] and _matches(found[1], path):
            return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/kcore",
        "/proc/mem",
        "/proc/irq/1/smp_affinity",
        "/proc/bus/pci/00/01.0",
        "/proc/scsi/scsi",
        "/proc/sysvipc/x",
        "/proc/sy/x",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/domainname",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/sem",
        "/proc/sys/kernel/s",
        "/proc/sys/kernel/sh",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/security/apparmor/.remove",
        "/sys/firmware/efi/efivars/x",
        "/sys/fs/bpf/x",
        "/sys/fs/cg/x",
        "/sys/devices/system/cpu/cpu0/online",
        "/sys/class/net",
    ],
)
def test_what_belongs_to_the_host_cannot_be_written(path: str) -> None:
    assert _denied(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/proc/1/oom_score_adj",
        "/proc/42/task/43/comm",
        "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/shm_rmid_forced",
        "/sys/fs/cgroup/x/cgroup.procs",
        "/process/x",
        "/system/x",
    ],
)
def test_what_is_the_containers_own_can_be_written(path: str) -> None:
    assert not _denied(path, "w")


@pytest.mark.parametrize("path", ["/proc/kcore", "/sys/firmware/dmi/x", "/sys/devices/virtual/powercap/intel-rapl/energy_uj"])
def test_what_tells_of_the_host_cannot_be_read(path: str) -> None:
    assert _denied(path, "r")


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/proc/sys/kernel/hostname", "/sys/devices/system/cpu/online"])
def test_the_rest_of_proc_and_sys_can_be_read(path: str) -> None:
    assert not _denied(path, "r")


@given(prefix=st.text("abs/", min_size=1, max_size=6), name=st.text("abs/", min_size=1, max_size=12))
def test_all_but_matches_exactly_the_names_without_the_prefix(prefix: str, name: str) -> None:
    """A directory above the prefix, with its slash, is no name."""
    if "//" in prefix or prefix.startswith("/") or (name.endswith("/") and prefix.startswith(name)):
        return
    assert any(_matches(pattern, name) for pattern in all_but(prefix)) is not name.startswith(prefix)


def test_the_abi_is_pinned_where_the_node_has_it() -> None:
    assert text(Dialect(has_abi=True)).startswith("abi <abi/3.0>,\n")
    assert "abi" not in text(Dialect()).partition("{")[0]


def test_another_rule_makes_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(text(Dialect()))
    assert digest(text(Dialect())) == before
    monkeypatch.setattr(apparmor_profile, "_DENIED", apparmor_profile._DENIED[:-1])
    assert digest(text(Dialect())) != before


def test_processes_of_one_container_may_signal_each_other_only() -> None:
    signals = [line.strip() for line in text(Dialect()).splitlines() if "send" in line]
    assert signals == [f"signal (send,receive) peer={NAME},"]
