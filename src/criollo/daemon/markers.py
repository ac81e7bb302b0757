"""Files by which one start knows of the last: was the node rebooted, was Criollo upgraded, did the daemon end as it should.

    version_file            on a tmpfs, our version: missing after a reboot
    version_file_persist    on the disk, our version: another one after an upgrade; none by default
    clean_shutdown_file     written after everything was flushed, taken away at start; missing: the end was not clean
    <it>.supported          beside it, since a first start has no end before it
    crio-wipe-done          beside version_file, from `crio wipe`: what the missing version asks for has been done

The names, contents and meanings are CRI-O's, so that units and scripts made for it go on working. Where root or runroot stand
elsewhere than usual, files at their usual paths stand in these instead: two daemons must not read each other's.
"""

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

from criollo import __version__
from criollo.config.settings import Settings
from criollo.errors import Invalid, explain
from criollo.linux import files, libc

DONE: Final = "crio-wipe-done"
_SUPPORTED: Final = ".supported"
_MAX_BYTES: Final = 4096
_USUAL: Final = Settings()


class Last(NamedTuple):
    """What the files say of the last time. A file that is not configured says nothing."""

    rebooted: bool  # version_file is missing, or of another minor version
    upgraded: bool  # version_file_persist is
    unclean: bool
    wiped: bool


class Markers(NamedTuple):
    """Where the files are; None: not configured."""

    version: Path | None
    persist: Path | None
    clean: Path | None
    root: Path

    @classmethod
    def of(cls, settings: Settings) -> "Markers":
        version, clean = settings.version_file, settings.clean_shutdown_file
        if version == _USUAL.version_file and settings.runroot != _USUAL.runroot:
            version = f"{settings.runroot}/version"
        if clean == _USUAL.clean_shutdown_file and settings.root != _USUAL.root:
            clean = f"{settings.root}/clean.shutdown"
        return cls(_path(version), _path(settings.version_file_persist), _path(clean), Path(settings.root))

    def read(self) -> Last:
        """What holds now. Blocking.

        Raises:
            HostFailed: a file is there and cannot be read.
        """
        supported = self.clean is not None and Path(f"{self.clean}{_SUPPORTED}").exists()
        return Last(
            rebooted=self.version is not None and not _is_ours(self.version),
            upgraded=self.persist is not None and not _is_ours(self.persist),
            unclean=supported and self.clean is not None and not self.clean.exists(),
            wiped=self.version is not None and self.version.with_name(DONE).exists(),
        )

    def begin(self) -> None:
        """Note that a daemon of this version runs. Blocking.

        Raises:
            CriolloError: a file cannot be written.
        """
        self._sweep()
        for path in (self.version, self.persist):
            if path is not None:
                _write(path, __version__.encode(), durable=path == self.persist)
        if self.clean is not None:
            with explain(f"remove {self.clean}"):
                self.clean.unlink(missing_ok=True)
            _write(Path(f"{self.clean}{_SUPPORTED}"), b"", durable=False)
        if self.version is not None:
            with contextlib.suppress(OSError):
                self.version.with_name(DONE).unlink()

    def open_store(self) -> int | None:
        """A descriptor for `end`, of before the first write: the kernel tells each of the writes that were lost since it was
        opened. None where ends are not noted. Blocking.

        Raises:
            CriolloError: it cannot be opened.
        """
        if self.clean is None:
            return None
        with explain(f"open {self.root}"):
            # One that is not made yet will be on the file system of what is above it.
            place = next(each for each in (self.root, *self.root.parents) if each.is_dir())
            return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def end(self, store: int | None) -> None:
        """Flush the `store` that was opened, then note that this end is a clean one. Blocking.

        Raises:
            CriolloError: it cannot be flushed or written, or lost some writes; the end is then not a clean one.
        """
        if self.clean is not None and store is not None:
            with explain(f"flush {self.root}"):
                libc.syncfs(store)
            _write(self.clean, b"", durable=True)

    def _sweep(self) -> None:
        """Remove what a killed process has left of these files: they may be in directories of others."""
        clean = (self.clean, Path(f"{self.clean}{_SUPPORTED}")) if self.clean is not None else ()
        for path in (self.version, self.version and self.version.with_name(DONE), self.persist, *clean):
            if path is not None:
                with explain(f"sweep {path.parent}"):
                    files.remove_unfinished(path.parent, path.name.__eq__)

    def wiped(self, store: int | None) -> None:
        """Note that `crio wipe` has done what these files asked for. Blocking. Raises CriolloError."""
        for path in (self.version, self.persist):
            if path is not None:
                _write(path, __version__.encode(), durable=False)
        if self.version is not None:
            _write(self.version.with_name(DONE), b"done", durable=False)
        self.end(store)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _is_ours(path: Path) -> bool:
    """Whether the file has a version whose major and minor number are ours."""
    with explain(f"read {path}"):
        try:
            text = files.read_limited(path, _MAX_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return False
        except Invalid:
            return False
    return text.strip().strip('"').split(".")[:2] == __version__.split(".")[:2]


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    with explain(f"write {path}"):
        os.makedirs(path.parent, 0o755, exist_ok=True)
        files.write_atomic(path, content, 0o644, durable=durable)
