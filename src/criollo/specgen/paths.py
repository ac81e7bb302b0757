"""Paths inside a container, as text: cleaned, absolute, and away from where the kernel's own filesystems sit (R14).

Text only: links in an image are the runtime's business, which resolves every destination below the rootfs.
"""

import posixpath
import re
import stat
from collections.abc import Mapping
from typing import Final

from criollo.errors import Invalid

KERNEL: Final = ("/proc", "/sys", "/dev")
MAX_BYTES: Final = 4096  # PATH_MAX, linux/limits.h

_BAD: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def check_absolute(path: str, field: str) -> str:
    """The path without `.`, `..`, doubled and trailing slashes.

    Raises:
        Invalid: relative, too long, or with control characters.
    """
    check_text(path, field)
    if not path.startswith("/"):
        raise Invalid(field, path, "an absolute path")
    return "/" + posixpath.normpath(path).lstrip("/")


def check_outside_kernel(path: str, field: str) -> str:
    """Likewise, and not on or below /proc, /sys or /dev.

    Raises:
        Invalid: as above, or there.
    """
    clean = check_absolute(path, field)
    if any(is_at_or_below(clean, top) for top in KERNEL):
        raise Invalid(field, path, f"a path outside {', '.join(KERNEL)}")
    return clean


def check_text(path: str, field: str) -> str:
    """A path that every tool downstream reads as the same one.

    Raises:
        Invalid: too long, not UTF-8, or with control characters.
    """
    if _BAD.search(path) or len(path.encode("utf-8", "replace")) >= MAX_BYTES:
        raise Invalid(field, path, f"a path of UTF-8 text without control characters, under {MAX_BYTES} bytes")
    return path


def check_rootfs(modes: Mapping[str, int | None]) -> None:
    """Whether runtimes may be handed a rootfs; `modes` has st_mode of `/` and of each of KERNEL, links not followed.

    A link at /dev, /proc or /sys has led runtimes to files of the host (CVE-2026-41579, CVE-2019-19921). Absent is None.

    Raises:
        Invalid: one of them is there and is no directory.
    """
    for path in ("/", *KERNEL):
        mode = modes.get(path)
        if mode is not None and not stat.S_ISDIR(mode):
            raise Invalid(f"{path} of the image", stat.filemode(mode), "a directory, or nothing; rebuild the image")


def is_at_or_below(path: str, top: str) -> bool:
    """Whether a clean path is `top` or inside it; text compared at whole components."""
    return path == top or top == "/" or path.startswith(top + "/")


def depth(path: str) -> int:
    """How many components a clean path has."""
    return 0 if path == "/" else path.count("/")
