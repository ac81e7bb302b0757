"""Values of the kernel that belong to CPUs: one file per CPU, or one bit of a file that holds a set of CPUs (blocking).

    /proc/irq/default_smp_affinity          mask: 00000000,0000000f
    <cgroup>/cpuset.cpus.exclusive          list: 0-3,8
    any other file, with a CPU              a line IRQBALANCE_BANNED_CPUS="mask" in a file of variables
    any other file                          its text

Source: kernel, Documentation/core-api/irq/irq-affinity.rst, admin-guide/cgroup-v2.rst; irqbalance(1).
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from criollo.linux import files

WHOLE: Final = -1
IRQ_AFFINITY: Final = "/proc/irq/default_smp_affinity"
EXCLUSIVE: Final = "cpuset.cpus.exclusive"
BANNED: Final = "IRQBALANCE_BANNED_CPUS"

_MAX_BYTES: Final = 1 << 20
_MAX_CPUS: Final = 8192  # what kernels are built for
_MASK: Final = re.compile(r"[0-9a-fA-F]+(?:,[0-9a-fA-F]{1,8})*")
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MARK: Final = "# The next line is set by crio while pods want CPUs without interrupts, and goes with them."


class Knob(NamedTuple):
    """A file, or what it says of one CPU: `1` or `0`."""

    path: str
    cpu: int = WHOLE


class _Set(NamedTuple):
    """How a file holds a set of CPUs: what is read of its text, and the text with another set."""

    parse: Callable[[str], frozenset[int]]
    change: Callable[[str, frozenset[int]], str]


def read(knob: Knob) -> str:
    """What it is set to. Raises OSError; one that makes no sense is EINVAL of the file."""
    text = _text(knob.path)
    if knob.cpu == WHOLE:
        return text.strip()
    return str(int(knob.cpu in _parsed(knob.path, text)))


def write_all(wanted: Mapping[Knob, str]) -> None:
    """Set them, in order; the bits of one file at once, where its first stands. Nothing is written that is so already.

    Raises:
        OSError: the kernel refused; `filename` says where, those before are set.
    """
    for path in dict.fromkeys(knob.path for knob in wanted):
        bits = {knob.cpu: value for knob, value in wanted.items() if knob.path == path and knob.cpu != WHOLE}
        if bits:
            _write_bits(path, bits)
        elif _text(path).strip() != (value := wanted[Knob(path)]):
            _write(path, value)


def parse_mask(text: str) -> frozenset[int]:
    """`00000001,80000000` as numbers of bits. Raises ValueError."""
    found = text.strip()
    if not found:
        return frozenset()
    if not _MASK.fullmatch(found) or len(found) > _MAX_CPUS:
        raise ValueError("no mask of CPUs")
    groups = found.split(",")
    digits = groups[0] + "".join(group.rjust(8, "0") for group in groups[1:])  # the kernel pads, people may not
    bits = int(digits, 16)
    return frozenset(bit for bit in range(bits.bit_length()) if bits >> bit & 1)


def mask(cpus: Iterable[int], *, words: int = 1) -> str:
    """As the kernel writes it: groups of 32 CPUs, at least `words` of them."""
    bits = sum(1 << cpu for cpu in set(cpus))
    digits = f"{bits:x}"
    digits = digits.zfill(max(8 * words, -(-len(digits) // 8) * 8))
    return ",".join(digits[at : at + 8] for at in range(0, len(digits), 8))


def parse_list(text: str) -> frozenset[int]:
    """`0-3,8` as numbers. Raises ValueError."""
    found: set[int] = set()
    for part in text.strip().split(",") if text.strip() else ():
        match = _RANGE.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= _MAX_CPUS:
            raise ValueError("no list of CPUs")
        found.update(range(first, last + 1))
    return frozenset(found)


def banned(text: str) -> frozenset[int]:
    """The CPUs that a configuration of irqbalance bans. Raises ValueError."""
    return parse_mask(value) if (value := banned_text(text)) else frozenset()


def banned_text(text: str) -> str:
    """What stands behind IRQBALANCE_BANNED_CPUS=, without quotes; the last line counts, empty without one."""
    values = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{BANNED}=")]
    return values[-1].strip().strip("\"'") if values else ""


def with_banned(text: str, value: str) -> str:
    """The configuration with other banned CPUs. A line that there was not is added, and taken away for an empty value."""
    lines = text.splitlines()
    is_ours = _MARK in lines
    kept = [line for line in lines if line != _MARK and not (is_ours and line.startswith(f"{BANNED}="))]
    if any(line.startswith(f"{BANNED}=") for line in kept):
        kept = [f'{BANNED}="{value}"' if line.startswith(f"{BANNED}=") else line for line in kept]
    elif value:
        kept += [_MARK, f'{BANNED}="{value}"']
    return "".join(f"{line}\n" for line in kept)


def _change_banned(text: str, cpus: frozenset[int]) -> str:
    """No CPU at all is no line where there was none; else a mask as wide as the one before."""
    if not cpus and _MARK in text.splitlines():
        return with_banned(text, "")
    return with_banned(text, mask(cpus, words=_words(banned_text(text))))


_IRQ: Final = _Set(parse_mask, lambda text, cpus: mask(cpus, words=_words(text)))
_LIST: Final = _Set(parse_list, lambda text, cpus: ",".join(map(str, sorted(cpus))) or "\n")
_VARIABLES: Final = _Set(banned, _change_banned)


def _words(text: str) -> int:
    return max(1, -(-len(text.strip().replace(",", "")) // 8))


def _kind(path: str) -> _Set:
    if path.endswith(IRQ_AFFINITY):
        return _IRQ
    return _LIST if path.endswith(f"/{EXCLUSIVE}") else _VARIABLES


def _parsed(path: str, text: str) -> frozenset[int]:
    try:
        return _kind(path).parse(text)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), path) from error


def _write_bits(path: str, bits: Mapping[int, str]) -> None:
    text = _text(path)
    before = _parsed(path, text)
    after = before - bits.keys() | {cpu for cpu, value in bits.items() if value == "1"}
    if after == before:
        return
    content = _kind(path).change(text, after)
    if _kind(path) is _VARIABLES:
        place = os.path.realpath(path)
        mode = stat.S_IMODE(os.stat(place).st_mode)
        files.write_atomic(place, content.encode("utf-8", "surrogateescape"), mode, durable=True)
    else:
        _write(path, content)


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(_MAX_BYTES)


def _write(path: str, content: str) -> None:
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(content.encode())
    except OSError as error:
        error.filename = error.filename or path  # a refused write does not say of what
        raise
