"""Which sysctls a pod may set: only those of namespaces that are its own. Pure.

A name is matched whole against an allow-list and written inside the pod's namespace (`linux.namespaces.write_sysctl`);
nothing is ever joined into an argument (CVE-2022-0811), and nothing reaches a namespace of the host (CVE-2022-0532).

Source: sysctl(8) of the kernel's ipc and net namespaces; CRI v1, LinuxPodSandboxConfig.sysctls.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from criollo.errors import Invalid
from criollo.linux.namespaces import NamespaceKind
from criollo.model.pod import IdMapping, Record

FIELD: Final = "config.linux.sysctls"
MAX_SYSCTLS: Final = 128
PING_GROUPS: Final = "net.ipv4.ping_group_range"

# In a part of a net name a `/` stands for the dot of an interface name: net.ipv4.conf.eth0/100.rp_filter
_WORD: Final = r"[A-Za-z0-9_-]{1,64}"
_ALLOWED: Final = (
    (NamespaceKind.IPC, re.compile(r"kernel\.(shm[a-z_]{1,32}|msg[a-z_]{1,32}|sem)|fs\.mqueue\.[a-z_]{1,32}")),
    (NamespaceKind.NET, re.compile(rf"net(\.{_WORD}(/{_WORD}){{0,4}}){{1,8}}")),
)
_RANGE: Final = re.compile(r"([0-9]{1,10})[ \t]+([0-9]{1,10})")
_VALUE: Final = re.compile(r"[A-Za-z0-9,._:/-]([A-Za-z0-9 \t,._:/-]{0,254}[A-Za-z0-9,._:/-])?")


class Sysctls(Record, frozen=True, kw_only=True):
    """What to write, and a sentence for each default that does not apply."""

    chosen: dict[str, str]
    dropped: tuple[str, ...] = ()


def choose(requested: Mapping[str, str], defaults: Mapping[str, str], kinds: Collection[NamespaceKind]) -> Sysctls:
    """The sysctls of a pod that has namespaces of its own of these kinds; what is requested wins over a default.

    Raises:
        Invalid: a requested one is malformed, not allowed, or belongs to a namespace of the host.
    """
    if len(requested) > MAX_SYSCTLS:
        raise Invalid(FIELD, f"{len(requested)} sysctls", f"at most {MAX_SYSCTLS}")
    chosen: dict[str, str] = {}
    dropped: list[str] = []
    for name, value in defaults.items():
        if name in requested:
            continue
        try:
            chosen[name] = _checked(name, value, kinds)
        except Invalid as error:
            dropped.append(f"default sysctl {error}")
    for name, value in requested.items():
        chosen[name] = _checked(name, value, kinds)
    return Sysctls(chosen=chosen, dropped=tuple(dropped))


def fitted(chosen: Mapping[str, str], gids: Sequence[IdMapping]) -> dict[str, str]:
    """The sysctls as a pod with a user namespace takes them: who may ping ends at the last group there is inside."""
    values = dict(chosen)
    match = _RANGE.fullmatch(values.get(PING_GROUPS, ""))
    if match:
        last = max((each.container_id + each.length - 1 for each in gids), default=0)
        values[PING_GROUPS] = f"{match[1]} {min(int(match[2]), last)}"
    return values


def _checked(name: str, value: str, kinds: Collection[NamespaceKind]) -> str:
    """The value as it is written."""
    kind = next((kind for kind, names in _ALLOWED if names.fullmatch(name)), None)
    if kind is None:
        raise Invalid(FIELD, name, "a dotted name: net.*, kernel.shm*, kernel.msg*, kernel.sem or fs.mqueue.*")
    if kind not in kinds:
        raise Invalid(FIELD, name, f"a pod with its own {kind} namespace; this one uses the host's, so leave it out")
    if not _VALUE.fullmatch(value.strip(" ")):
        raise Invalid(f"{FIELD}[{name}]", value, "letters, digits, spaces and , . _ : / - on one line")
    return value.strip(" ")
