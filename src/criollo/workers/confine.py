"""The limits a worker lives under while it reads hostile bytes (threat rule R2), set once, before the first byte.

Afterwards nothing may be imported, no name service asked, no program started: everything needed is loaded by the fork
server before it forks.
"""

import os
from collections.abc import Sequence
from typing import Final

from criollo.linux import libc, sandbox

MEMORY_BYTES: Final = 1 << 30
OPEN_FILES: Final = 64
CPU_S: Final = 3600
_NICEST: Final = 19
FILE_BYTES: Final = 1 << 44  # of one file in a container

_KEPT: Final = (
    sandbox.CAP_CHOWN,
    sandbox.CAP_DAC_OVERRIDE,
    sandbox.CAP_FOWNER,
    sandbox.CAP_FSETID,
    sandbox.CAP_MKNOD,
    sandbox.CAP_SETFCAP,
    sandbox.CAP_SYS_ADMIN,  # trusted.* attributes
)
_READING: Final = (sandbox.CAP_DAC_OVERRIDE,)
_WRITING: Final = (
    *_READING,
    sandbox.CAP_CHOWN,
    sandbox.CAP_FOWNER,
    sandbox.CAP_FSETID,
    sandbox.CAP_MKNOD,
    sandbox.CAP_SETFCAP,
)


def confine(directory: int, fds: Sequence[int], *, file_bytes: int, files: int = OPEN_FILES) -> None:
    """Make `directory` the root, keep only `fds` open, lower the limits, drop what is not needed to write a layer.

    Raises:
        OSError: the kernel refused; the process must not go on.
    """
    sandbox.enter(directory)
    sandbox.keep_only(fds)
    os.umask(0)
    sandbox.limit(memory_bytes=MEMORY_BYTES, files=files, file_bytes=file_bytes, cpu_s=CPU_S)
    sandbox.drop_privileges(_KEPT)


def be_idle() -> None:
    """Use the disk and the processor only when nobody else wants them.

    Raises:
        OSError: the kernel refused.
    """
    libc.set_idle_io()
    os.nice(_NICEST)


def confine_to_container(root: int, fds: Sequence[int], *, writing: bool, owner: tuple[int, int]) -> None:
    """Make `root`, of a container that may run, the root; keep only `fds` open; new files belong to `owner`.

    Raises:
        OSError: the kernel refused; the process must not go on.
    """
    sandbox.enter_foreign(root)
    sandbox.keep_only(fds)
    os.umask(0)
    sandbox.limit(memory_bytes=MEMORY_BYTES, files=OPEN_FILES, file_bytes=FILE_BYTES if writing else 0, cpu_s=CPU_S)
    sandbox.make_files_as(owner)  # before the capabilities: it takes those for files away
    sandbox.drop_privileges(_WRITING if writing else _READING)
