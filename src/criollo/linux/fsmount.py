"""The newer mount calls: a file system configured option by option, which knows no limit of one page; mounts by descriptor.

Source: fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2); Linux 5.2, with `lowerdir+` of overlay in 6.5.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SYS_OPEN_TREE: Final = 428  # asm-generic/unistd.h; the same on every architecture
_SYS_MOVE_MOUNT: Final = 429
_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_OPEN_TREE_CLONE: Final = 1  # linux/mount.h
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG: Final = 0
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_MOUNT_ATTR_RDONLY: Final = 1
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_AT_FDCWD: Final = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class FsmountRefused(OSError):
    """The kernel does not know these calls, or not one of the options."""


def mount(fstype: str, target: Path, options: Sequence[str], *, readonly: bool) -> None:
    """Mount a file system from `key=value` and `flag` options, each at most 255 bytes of value.

    Raises:
        Refused: see there.
        OSError: the kernel refused the mount itself.
    """
    context = _call(_SYS_FSOPEN, ctypes.c_char_p(fstype.encode()), ctypes.c_uint(_FSOPEN_CLOEXEC))
    try:
        for option in options:
            _set(context, option)
        none = ctypes.c_char_p(None)
        _call(_SYS_FSCONFIG, ctypes.c_int(context), ctypes.c_uint(_FSCONFIG_CMD_CREATE), none, none, ctypes.c_int(0))
        attributes = ctypes.c_uint(_MOUNT_ATTR_RDONLY if readonly else 0)
        made = _call(_SYS_FSMOUNT, ctypes.c_int(context), ctypes.c_uint(_FSMOUNT_CLOEXEC), attributes)
    finally:
        os.close(context)
    try:
        attach(made, target)
    finally:
        os.close(made)


def clone(path: str | Path) -> int:
    """A copy of the mount that shows `path`, with `path` as its root and without what is mounted below; attached nowhere.

    The descriptor holds it: close it, after `attach` or instead.

    Raises:
        Refused: Linux before 5.2.
        OSError: no such path, or not allowed.
    """
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    return _call(_SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(path)), flags)


def attach(tree: int, target: str | Path) -> None:
    """Mount what `clone` gave at `target`.

    Raises:
        OSError: the kernel refused.
    """
    place = ctypes.c_char_p(os.fsencode(target))
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    _call(_SYS_MOVE_MOUNT, ctypes.c_int(tree), ctypes.c_char_p(b""), ctypes.c_int(_AT_FDCWD), place, flags)


def _set(context: int, option: str) -> None:
    key, equals, value = option.partition("=")
    command = _FSCONFIG_SET_STRING if equals else _FSCONFIG_SET_FLAG
    text = ctypes.c_char_p(os.fsencode(value) if equals else None)
    name = ctypes.c_char_p(key.encode())
    try:
        _call(_SYS_FSCONFIG, ctypes.c_int(context), ctypes.c_uint(command), name, text, ctypes.c_int(0))
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise FsmountRefused(error.errno, f"option {option!r} refused") from error
        raise


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        if code == errno.ENOSYS:
            raise FsmountRefused(code, os.strerror(code))
        raise OSError(code, os.strerror(code))
    return result
