"""Who a container runs as: one parser for identity, over bytes of the image that may be hostile (threats R6, R7).

A number is 1 to 10 ASCII digits from 0 to 2^31-1, else an error; text of digits alone never means a name. The primary
group is always among the supplementary ones (CVE-2022-2995). Files are given whole, at most 10 MiB, and read line by
line; the first matching line counts. The lines written for unknown users come from here too.
Source: OCI image-spec, config.md, User; CRI v1, LinuxContainerSecurityContext; passwd(5), group(5).
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from criollo.errors import Invalid
from criollo.model.container import ContainerSecurity
from criollo.model.pod import Record

MAX_FILE_BYTES: Final = 10 << 20
MAX_LINE_BYTES: Final = 64 << 10
MAX_ID: Final = (1 << 31) - 1

_DIGITS: Final = re.compile(r"[0-9]{1,10}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class ResolvedUser(Record, frozen=True, kw_only=True):
    """Numbers for the spec. `groups` begins with the primary group; `in_passwd` says whether the uid has a line there."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"
    in_passwd: bool = True


class _Entry(NamedTuple):
    name: bytes
    uid: int
    gid: int
    home: str


def resolve(security: ContainerSecurity, image_user: str, *, passwd: bytes | None, group: bytes | None) -> ResolvedUser:
    """The user of the first process: the request's, else the image's, else root.

    A user without a group has the one of its /etc/passwd line, else 0. `run_as_group` replaces the group but not the
    memberships. Policy Merge adds the groups of /etc/group that list the user; Strict takes only those requested.

    Raises:
        Invalid: a number out of range, a name the image does not know, a group without a user, or a hostile file.
    """
    user_text, group_text = _asked(security, image_user)
    entry, uid = _find_user(user_text, passwd)
    gid = entry.gid if entry else 0
    memberships: list[int] = []
    if group_text:
        gid = _group_id(group_text, group)
    elif entry is not None and not security.supplemental_groups_strict:
        memberships = _memberships(entry.name, group)
    if security.run_as_group is not None:
        gid = _number(security.run_as_group, "run_as_group")
    requested = [_number(value, "supplemental_groups") for value in security.supplemental_groups]
    return ResolvedUser(
        uid=uid,
        gid=gid,
        groups=tuple(dict.fromkeys([gid, *memberships, *requested])),
        home=entry.home if entry else "/",
        in_passwd=entry is not None,
    )


def parse_id(text: str, field: str) -> int | None:
    """A user or group number; None when the text is no number and so may be a name.

    Raises:
        Invalid: digits that are no id: out of range, or too many.
    """
    if _DIGITS.fullmatch(text) and int(text) <= MAX_ID:
        return int(text)
    if text.isdecimal() or text.isdigit() or re.fullmatch(r"[-+]\d+", text):
        raise Invalid(field, text, f"a name, or a number from 0 to {MAX_ID}")
    return None


def passwd_with(content: bytes, *, uid: int, gid: int, home: str) -> bytes:
    """/etc/passwd with a line for a user that has none; unchanged if it has one.

    Raises:
        Invalid: the home directory would break the line.
    """
    if any(entry.uid == uid for entry in _entries(content)):
        return content
    line = _line(str(uid), "x", str(uid), str(gid), f"{uid} user", home, "/sbin/nologin")
    return _ended(content) + line


def group_with(content: bytes, *, gid: int) -> bytes:
    """/etc/group with a line for a group that has none; unchanged if it has one."""
    if any(_file_number(fields[2]) == gid for fields in _records(content, "/etc/group", 3)):
        return content
    return _ended(content) + _line(str(gid), "x", str(gid), "")


def check_line_field(text: str, field: str) -> str:
    """A value fit for one field of a line file.

    Raises:
        Invalid: it has a control character, a line separator or a colon.
    """
    if _CONTROL.search(text) or ":" in text:
        raise Invalid(field, text, "text without control characters and colons")
    return text


def _asked(security: ContainerSecurity, image_user: str) -> tuple[str, str]:
    """User and group as text, of the request or of the image; never the user of one with the group of the other."""
    if security.run_as_user is not None and security.run_as_username:
        raise Invalid("run_as_username", security.run_as_username, "nothing while run_as_user is given")
    if security.run_as_user is not None:
        return str(_number(security.run_as_user, "run_as_user")), ""
    if security.run_as_username:
        if parse_id(security.run_as_username, "run_as_username") is not None:
            raise Invalid("run_as_username", security.run_as_username, "a name; a number goes into run_as_user")
        return security.run_as_username, ""
    if security.run_as_group is not None:
        raise Invalid("run_as_group", security.run_as_group, "nothing: user group is specified without user or username")
    user, colon, group = image_user.partition(":")
    if colon and (not user or not group or ":" in group):
        raise Invalid("image config User", image_user, "user, uid, user:group or uid:gid")
    return user or "0", group


def _find_user(text: str, passwd: bytes | None) -> tuple[_Entry | None, int]:
    uid = parse_id(text, "user")
    if uid is not None:
        return next((entry for entry in _entries(passwd or b"") if entry.uid == uid), None), uid
    name = check_line_field(text, "user").encode()
    for fields in _records(passwd or b"", "/etc/passwd", 4):
        if fields[0] == name:
            entry = _entry(fields)
            if entry is None:
                raise Invalid(f"/etc/passwd of the image, user {text}", fields[2].decode("ascii", "replace"), _RANGE)
            return entry, entry.uid
    raise Invalid("user", text, "a user that /etc/passwd of the image names, or a number")


def _group_id(text: str, group: bytes | None) -> int:
    gid = parse_id(text, "group")
    if gid is not None:
        return gid
    name = check_line_field(text, "group").encode()
    for fields in _records(group or b"", "/etc/group", 3):
        if fields[0] == name:
            gid = _file_number(fields[2])
            if gid is None:
                raise Invalid(f"/etc/group of the image, group {text}", fields[2].decode("ascii", "replace"), _RANGE)
            return gid
    raise Invalid("group", text, "a group that /etc/group of the image names, or a number")


def _memberships(name: bytes, group: bytes | None) -> list[int]:
    found = []
    for fields in _records(group or b"", "/etc/group", 4):
        if name in fields[3].split(b","):
            gid = _file_number(fields[2])
            if gid is not None:
                found.append(gid)
    return found


def _entries(content: bytes) -> Iterator[_Entry]:
    return (entry for fields in _records(content, "/etc/passwd", 4) if (entry := _entry(fields)) is not None)


def _entry(fields: Sequence[bytes]) -> _Entry | None:
    uid, gid = _file_number(fields[2]), _file_number(fields[3])
    if uid is None or gid is None:
        return None
    home = fields[5].decode("utf-8", "replace") if len(fields) > 5 and fields[5] else "/"
    return _Entry(fields[0], uid, gid, home)


def _records(content: bytes, name: str, at_least: int) -> Iterator[list[bytes]]:
    """Lines split at colons; comments, empty lines and lines with too few fields are skipped.

    Raises:
        Invalid: the file is over its cap, or a line over its own.
    """
    if len(content) > MAX_FILE_BYTES:
        raise Invalid(f"{name} of the image", f"{len(content)} bytes", f"at most {MAX_FILE_BYTES} bytes")
    lines = io.BytesIO(content)
    while line := lines.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise Invalid(f"{name} of the image", "a longer line", f"lines of at most {MAX_LINE_BYTES} bytes")
        fields = line.strip(b" \t\r\n").split(b":")
        if len(fields) >= at_least and fields[0] and not fields[0].startswith(b"#"):
            yield fields


def _number(value: int, field: str) -> int:
    if not 0 <= value <= MAX_ID:
        raise Invalid(field, value, f"a number from 0 to {MAX_ID}")
    return value


def _file_number(text: bytes) -> int | None:
    """A number in a file of the image; None when it is none, so that the line counts for nobody."""
    if len(text) > 10 or not text.isdigit() or int(text) > MAX_ID:
        return None
    return int(text)


def _line(*fields: str) -> bytes:
    return ":".join(check_line_field(field, "/etc/passwd field") for field in fields).encode() + b"\n"


def _ended(content: bytes) -> bytes:
    return content if not content or content.endswith(b"\n") else content + b"\n"


_RANGE: Final = f"a number from 0 to {MAX_ID}"
