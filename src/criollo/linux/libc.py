"""System calls that Python lacks, by ctypes: each checks errno and raises OSError. No policy.

Numbers are those of linux/*.h; system call numbers of x86_64 and aarch64 agree for all calls added after Linux 5.0.
"""

import ctypes
import os
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_FS: Final = 0x200  # linux/sched.h
CLONE_NEWNS: Final = 0x20000
CLONE_NEWCGROUP: Final = 0x2000000
CLONE_NEWUTS: Final = 0x4000000
CLONE_NEWIPC: Final = 0x8000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MNT_DETACH: Final = 2  # linux/fs.h
UMOUNT_NOFOLLOW: Final = 8

RESOLVE_NO_XDEV: Final = 0x01  # linux/openat2.h
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_IN_ROOT: Final = 0x10

RENAME_NOREPLACE: Final = 1  # linux/fs.h
RENAME_EXCHANGE: Final = 2

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MAX_MMAP_THRESHOLD: Final = 32 << 20  # of glibc on 64 bits

_IOPRIO_WHO_PROCESS: Final = 1  # linux/ioprio.h
_IOPRIO_IDLE: Final = 3 << 13

_SYS_OPENAT2: Final = 437  # asm-generic/unistd.h; the same on every architecture
_AT_FDCWD: Final = -100

# A walk back through ".." within a root is given up (EAGAIN) when anything on the node was mounted or renamed meanwhile.
# Source: openat2(2), ERRORS.
_WALKS: Final = 100

_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.syncfs.argtypes = (ctypes.c_int,)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_libc.syscall.restype = ctypes.c_long
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _check(result: int, path: object = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path) if path is not None else OSError(number, os.strerror(number))
    return result


def mount(source: str, target: str, fstype: str | None, flags: int, options: str | None = None) -> None:
    """mount(2). Relative paths are relative to the thread's directory."""
    encode = os.fsencode
    _check(
        _libc.mount(
            encode(source), encode(target), fstype.encode() if fstype else None, flags, encode(options) if options else None
        ),
        target,
    )


def umount2(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind))


def syncfs(fd: int) -> None:
    _check(_libc.syncfs(fd))


def fstatfs_type(fd: int) -> int:
    """The magic number of the filesystem behind a descriptor: `f_type`, the first word of struct statfs."""
    room = ctypes.create_string_buffer(512)
    _check(_libc.fstatfs(fd, room))
    return ctypes.c_long.from_buffer(room).value


def rename_noreplace(
    source: str | bytes, target: str | bytes, *, source_dir: int = _AT_FDCWD, target_dir: int = _AT_FDCWD
) -> None:
    """renameat2(RENAME_NOREPLACE): FileExistsError when the target is there."""
    _check(
        _libc.renameat2(source_dir, os.fsencode(source), target_dir, os.fsencode(target), RENAME_NOREPLACE),
        os.fsdecode(target),
    )


def rename_exchange(first: str | bytes, second: str | bytes) -> None:
    """renameat2(RENAME_EXCHANGE): both must be there; nobody sees a moment without one of them."""
    _check(
        _libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE),
        os.fsdecode(second),
    )


def set_idle_io() -> None:
    """ioprio_set(2): this process gets the disk only when nobody else wants it, where the scheduler knows classes."""
    number = {"x86_64": 251, "aarch64": 30}.get(os.uname().machine)  # asm/unistd.h
    if number is not None:
        _check(
            _libc.syscall(ctypes.c_long(number), ctypes.c_int(_IOPRIO_WHO_PROCESS), ctypes.c_int(0), ctypes.c_int(_IOPRIO_IDLE))
        )


def use_one_heap() -> None:
    """mallopt(3): threads share the heap instead of starting one each, whose free pages no other gets. Call it before them."""
    _libc.mallopt(_M_ARENA_MAX, 1)


def keep_freed_memory(held_bytes: int) -> None:
    """mallopt(3): memory that is freed is used again, large blocks too, instead of going to the kernel and coming back page by
    page, each with a fault. Up to `held_bytes` stay."""
    _libc.mallopt(_M_MMAP_THRESHOLD, min(held_bytes, _MAX_MMAP_THRESHOLD))
    _libc.mallopt(_M_TRIM_THRESHOLD, held_bytes)


def malloc_trim() -> None:
    """Give memory that was freed back to the kernel, as far as it is whole pages: after a start, about a mebibyte."""
    _libc.malloc_trim(0)


def openat2(directory: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), close-on-exec; returns a descriptor."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for left in reversed(range(_WALKS)):
        try:
            return _check(
                _libc.syscall(
                    ctypes.c_long(_SYS_OPENAT2),
                    ctypes.c_int(directory),
                    ctypes.c_char_p(os.fsencode(path)),
                    ctypes.byref(how),
                    ctypes.c_size_t(ctypes.sizeof(how)),
                ),
                os.fsdecode(path),
            )
        except BlockingIOError:
            if not left:
                raise
    raise AssertionError(path)
