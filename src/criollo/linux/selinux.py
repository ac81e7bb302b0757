"""SELinux as the kernel speaks it: labels, their levels, and the labels of files.

    user:role:type:level            level: s0, s0:c1,c2, s0:c1.c5, or a range of two, s0-s15:c0.c1023

The same level can be written in several ways; `canonical` gives the kernel's own. Names of sensitivities and categories
(mcstransd) are not understood: who talks to the kernel uses numbers.

Source: selinux(8), mcs(8); the kernel, security/selinux/ss/mls.c, mls_sid_to_context and mls_context_to_sid.
"""

import errno
import os
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from criollo.errors import Invalid

CATEGORIES: Final = 1024  # of the policies that distributions have
XATTR: Final = "security.selinux"

_FILE_SYSTEM: Final = "/sys/fs/selinux"
_MAX_LABEL: Final = 4096
_MAX_SENSITIVITY: Final = 1024
_PART: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_NUMBER: Final = re.compile(r"[0-9]{1,5}")
_NO_LABELS: Final = (errno.ENODATA, errno.EOPNOTSUPP)  # no label, and a file system without any


class Level(NamedTuple):
    """A sensitivity, and categories that are all needed."""

    sensitivity: int
    categories: frozenset[int] = frozenset()

    def __str__(self) -> str:
        found = _ranges(self.categories)
        return f"s{self.sensitivity}" + (f":{found}" if found else "")


class Label(NamedTuple):
    """A label; `level` is empty under a policy without levels."""

    user: str
    role: str
    type: str
    level: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


def parse_label(text: str, field: str = "label") -> Label:
    """A label with its level as it was written.

    Raises:
        Invalid: it has not three or four parts, or one of them cannot be.
    """
    parts = text.split(":", 3)
    if len(text) > _MAX_LABEL or len(parts) < 3 or not all(_PART.fullmatch(part) for part in parts[:3]):
        raise Invalid(field, text, "a label of SELinux: user:role:type:level")
    level = parts[3] if len(parts) == 4 else ""
    if len(parts) == 4:
        parse_range(level, field)
    return Label(parts[0], parts[1], parts[2], level)


def check_part(text: str, field: str) -> str:
    """A user, role or type.

    Raises:
        Invalid: it has characters that no such name has.
    """
    if not _PART.fullmatch(text):
        raise Invalid(field, text, "a name of the policy: letters, digits, '_', '-' and '.'")
    return text


def parse_range(text: str, field: str = "level") -> tuple[Level, Level]:
    """The low and the high level of a range; a single level is both.

    Raises:
        Invalid: it is none.
    """
    low, dash, high = text.partition("-")
    first = _level(low, text, field)
    return first, (_level(high, text, field) if dash else first)


def canonical(level: str, field: str = "level") -> str:
    """A level or range as the kernel writes it: categories in order, three or more in a row as `c1.c3`.

    Raises:
        Invalid: it is none.
    """
    low, high = parse_range(level, field)
    return str(low) if low == high else f"{low}-{high}"


def same(one: str, other: str) -> bool:
    """Whether two labels mean the same, in whichever order their categories are; False for what is no label."""
    try:
        left, right = parse_label(one), parse_label(other)
        return left[:3] == right[:3] and _meaning(left.level) == _meaning(right.level)
    except Invalid:
        return False


def is_enabled() -> bool:
    """Whether the kernel has a policy loaded."""
    return os.path.exists(f"{_FILE_SYSTEM}/enforce") and os.path.exists(f"{_FILE_SYSTEM}/policyvers")


def check(label: str, field: str) -> None:
    """Ask the loaded policy whether it has such a label.

    Raises:
        Invalid: it has not; or what is given is no label.
    """
    parse_label(label, field)
    fd = os.open(f"{_FILE_SYSTEM}/context", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, label.encode() + b"\0")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Invalid(field, label, "a label that this node's SELinux policy knows") from error
    finally:
        os.close(fd)


def is_enforcing() -> bool:
    """Whether the kernel refuses what the policy does not allow; else it only tells."""
    with open(f"{_FILE_SYSTEM}/enforce", encoding="ascii") as file:
        return file.read(2).strip() == "1"


def missing(source: str, target: str, permissions: Iterable[str], *, kind: str = "file") -> tuple[str, ...]:
    """Those of the permissions that a process with the label `source` does not have on what `target` labels.

    Raises:
        OSError: the policy does not know one of the labels (EINVAL), the class or a permission.
    Source: the kernel, security/selinux/selinuxfs.c, sel_write_access and its classes.
    """
    place = f"{_FILE_SYSTEM}/class/{kind}"
    numbers = {each: int(_line(f"{place}/perms/{each}")) for each in permissions}
    fd = os.open(f"{_FILE_SYSTEM}/access", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(fd, f"{source} {target} {int(_line(f'{place}/index'))}".encode())
        allowed = int(os.read(fd, _MAX_LABEL).split(b" ")[0], 16)
    finally:
        os.close(fd)
    return tuple(each for each, number in numbers.items() if not allowed >> (number - 1) & 1)


def label_of(fd: int) -> str:
    """The label of an opened file, also one opened by O_PATH; empty where it has none."""
    try:
        return os.getxattr(f"/proc/self/fd/{fd}", XATTR).rstrip(b"\0").decode("utf-8", "replace")
    except OSError as error:
        if error.errno in _NO_LABELS:
            return ""
        raise


def set_label(fd: int, label: str) -> bool:
    """Label an opened file, also one opened by O_PATH; False where the file system has no labels.

    Raises:
        OSError: the kernel refused.
    """
    try:
        os.setxattr(f"/proc/self/fd/{fd}", XATTR, label.encode() + b"\0")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return False
        raise
    return True


def _line(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.readline().strip()


def _meaning(level: str) -> tuple[Level, Level] | None:
    return parse_range(level) if level else None


def _level(text: str, whole: str, field: str) -> Level:
    sensitivity, colon, listed = text.partition(":")
    number = _number(sensitivity, "s", _MAX_SENSITIVITY)
    categories: set[int] = set()
    for item in listed.split(",") if colon else ():
        first, dot, last = item.partition(".")
        start = _number(first, "c", CATEGORIES)
        end = _number(last, "c", CATEGORIES) if dot else start
        if start is None or end is None or end < start:
            raise _no_level(whole, field)
        categories.update(range(start, end + 1))
    if number is None:
        raise _no_level(whole, field)
    return Level(number, frozenset(categories))


def _number(text: str, letter: str, limit: int) -> int | None:
    if not text.startswith(letter) or not _NUMBER.fullmatch(text[1:]) or int(text[1:]) >= limit:
        return None
    return int(text[1:])


def _no_level(text: str, field: str) -> Invalid:
    return Invalid(field, text, f"a level of SELinux, such as s0:c1,c2, with categories below c{CATEGORIES}")


def _ranges(categories: Iterable[int]) -> str:
    """Categories in order; the kernel writes two in a row with a comma, more with a dot."""
    runs: list[list[int]] = []
    for each in sorted(categories):
        if runs and each == runs[-1][-1] + 1:
            runs[-1].append(each)
        else:
            runs.append([each])
    return ",".join(_run(run[0], run[-1]) for run in runs)


def _run(first: int, last: int) -> str:
    if first == last:
        return f"c{first}"
    return f"c{first}{',' if last == first + 1 else '.'}c{last}"
