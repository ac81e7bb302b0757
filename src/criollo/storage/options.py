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

_FLAGS: Final = {"nodev": mount.MS_NODEV, "nosuid": mount.MS_NOSUID, "noexec": mount.MS_NOEXEC}
_SIZE: Final = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,6}))?\s*([kmgtp]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
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
    match = _SIZE.fullmatch(text.strip())
    if match:
        unit = 1 << 10 * _POWERS[match[3].lower()]
        fraction = int(match[2]) * unit // 10 ** len(match[2]) if match[2] else 0
        if (size := int(match[1]) * unit + fraction) <= _MOST:
            return size
    raise Invalid(field, text, "a size like '10GiB', '512m' or a number of bytes")


def parse_count(text: str, field: str) -> int:
    """A number of files; 0 means no limit.

    Raises:
        Invalid: no number.
    """
    if not _COUNT.fullmatch(text.strip()):
        raise Invalid(field, text, "a number of files")
    return int(text)
