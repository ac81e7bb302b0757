"""`storage_option` of crio.conf and annotations about storage, as values: limits of writable layers, flags of mounts.

    overlay.size=10GiB, btrfs.size, vfs.size    what a writable layer may take
    overlay.inodes=100000, vfs.inodes           how many files it may have
    overlay.mountopt=nodev,nosuid               flags of overlay mounts

Options of drivers that are not in use are left alone, as containers/storage does. Ours are a part of what that library knows:
what has no effect here is named in a warning.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from criollo.errors import Invalid
from criollo.linux import mount
from criollo.storage.base import Limit
from criollo.storage.storage_conf import STORE_OPTIONS
from criollo.wire.bytesizes import parse_bytes

_FLAGS: Final = {"nodev": mount.MS_NODEV, "nosuid": mount.MS_NOSUID, "noexec": mount.MS_NOEXEC}
_MOST: Final = 1 << 60  # file systems count kilobytes in 64 bits, and add
_COUNT: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


class Options(NamedTuple):
    """What the options of one driver say; `without_effect` are those that do nothing here."""

    limit: Limit = Limit()
    mount_flags: int = 0
    without_effect: tuple[str, ...] = ()


def parse_options(driver: str, options: Iterable[str]) -> Options:
    """The options for a driver, each `key=value`; the last of a key counts.

    Raises:
        Invalid: an option is no pair, or its value no size or number.
    """
    limit, flags, ignored = Limit(), 0, []
    for option in options:
        key, equals, value = (part.strip() for part in option.partition("="))
        if not equals:
            raise Invalid("storage_option", option, "key=value, for example 'overlay.size=10GiB'")
        if key in STORE_OPTIONS:
            continue
        if key == f"{driver}.size":
            limit = limit._replace(bytes=parse_size(value, key))
        elif key == f"{driver}.inodes" and driver != "btrfs":
            limit = limit._replace(inodes=parse_count(value, key))
        elif key == f"{driver}.mountopt" and driver == "overlay":
            words = [word.strip() for word in value.split(",") if word.strip()]
            flags = sum({_FLAGS[word] for word in words if word in _FLAGS})
            ignored += [f"{key}={word}" for word in words if word not in _FLAGS]
        elif key.partition(".")[0] in (driver, "") or "." not in key:
            ignored.append(option.strip())
    return Options(limit, flags, tuple(ignored))


def parse_size(text: str, field: str) -> int:
    """A number of bytes, with an optional unit, all powers of 1024: `10GiB`, `512m`, `1.5g`; 0 means no limit.

    Raises:
        Invalid: not of this form, or beyond an exbibyte.
    """
    count = parse_bytes(text.strip())
    if count is None or count > _MOST:
        raise Invalid(field, text, "a size like '10GiB', '512m' or a number of bytes")
    return count


def parse_count(text: str, field: str) -> int:
    """A number of files; 0 means no limit.

    Raises:
        Invalid: no number.
    """
    if not _COUNT.fullmatch(text.strip()):
        raise Invalid(field, text, "a number of files")
    return int(text)
