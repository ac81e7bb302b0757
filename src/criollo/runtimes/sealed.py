"""A runtime's program in a sealed memory file, so that it starts at once.

crun copies itself into such a file whenever it starts, and goes on from there: no container can then reach the host's program
through /proc/self/exe and change it. Started from one it finds nothing left to do, which spares a copy, an exec and the
dynamic linking of a dozen libraries: 1.3 of the 4.7 ms of an exec.

All calls share the copy. A container that got hold of it cannot change it, but can open it for writing, and then nobody can
execute it: `process.spawn` takes the program itself instead. A monitor cannot do so, and gets the program's own path.

Source: crun, cloned_binary.c; CVE-2019-5736; memfd_create(2), execve(2) (ETXTBSY).
"""

import fcntl
import os
from pathlib import Path
from typing import Final

from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_MFD_EXEC: Final = 0x10  # Linux 6.3: executable also where vm.memfd_noexec says otherwise; earlier kernels refuse the flag
_ELF: Final = b"\x7fELF"


class CommandLine(tuple[str, ...]):
    """The words that a program's calls begin with; `executable` is what to execute for the first, None for itself."""

    executable: str | None

    def __new__(cls, *words: str, executable: str | None = None) -> "CommandLine":
        made = super().__new__(cls, words)
        made.executable = executable
        return made


class SealedProgram:
    """The copy of one program. Blocking, but only for a fraction of a millisecond."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._identity: tuple[int, ...] = ()
        self._copies: list[int] = []  # the last is in use; somebody may be starting an earlier one
        self._path: str | None = None

    def path(self) -> str | None:
        """What to execute for the program as it is now; None where it must be executed itself."""
        try:
            status = os.stat(self._program)
        except OSError:
            return None  # who executes it says what is wrong
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if identity != self._identity:
            self._identity = identity
            fd = self._copy()
            self._path = None if fd < 0 else _path_of(fd)
            if fd >= 0:
                self._copies.append(fd)
        return self._path

    def close(self) -> None:
        while self._copies:
            os.close(self._copies.pop())
        self._path, self._identity = None, ()

    def _copy(self) -> int:
        """A descriptor of a new copy, or -1."""
        try:
            content = self._program.read_bytes()
            if not content.startswith(_ELF):  # a script: its interpreter reads it again, by name
                return -1
            return _sealed(self._program.name, content)
        except OSError as error:
            log.warning("runtime program is run from its file, which takes longer", program=self._program, cause=error)
            return -1


def _sealed(name: str, content: bytes) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create(name, flags)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def _path_of(fd: int) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}"  # children find it as long as we have it, whatever they close themselves
