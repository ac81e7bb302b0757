"""Credentials of one Kubernetes namespace for one image: a file that a credential provider writes before a pull.

    <dir>/<namespace>-<sha256 of the image's name>.json      auth.json, written by the provider
    <dir>/in-use/….json                                       while we read it

A file serves one pull: it is taken away before it is read. What a daemon had in use that was killed goes when the next one
starts. It replaces all other auth files for that pull, and may name no programs.

Source: CRI-O's configuration, namespaced_auth_dir; crio-credential-provider.
"""

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci.reference import Reference
from criollo.registry import auth_files
from criollo.registry.logins import Logins
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

TAKEN: Final = "Using auth file for namespace"  # CRI-O's words; people look for them in logs
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,251}[a-z0-9])?")  # a DNS label; one more kind of name is no harm
_IN_USE: Final = "in-use"
_MAX_FILE_BYTES: Final = 4 << 20


def take(directory: Path, namespace: str, image: str) -> Logins | None:
    """The credentials waiting for this pull of `image`, as the client wrote it; None if there are none.

    Raises:
        Invalid: the file is malformed or no regular file; its secrets are not shown.
        HostFailed: it cannot be taken.
    """
    path = place(directory, namespace, image)
    if path is None or not path.exists():
        return None
    in_use = directory / _IN_USE
    taken = in_use / f"{path.stem}-{secrets.token_hex(8)}.json"
    with explain(f"take {path}"):
        files.make_directory(in_use, 0o700)
        try:
            path.rename(taken)
        except FileNotFoundError:  # another pull of the image was first
            return None
        try:
            fd = os.open(taken, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                raw = files.read_limited(fd, _MAX_FILE_BYTES, name=str(path))
            finally:
                os.close(fd)
        finally:
            with contextlib.suppress(FileNotFoundError):
                taken.unlink()
    log.info(TAKEN, namespace=namespace, image=image, file=path)
    return Logins(given=auth_files.parse(raw, where=str(path)))


def forget(directory: Path) -> None:
    """Remove what a daemon was killed with between taking a file and reading it; blocking. Absence is success.

    Raises:
        HostFailed: it cannot be removed.
    """
    with explain(f"remove credentials in {directory / _IN_USE}"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(directory / _IN_USE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(directory / _IN_USE / name)


def look(directory: Path, namespace: str, image: str) -> Logins | None:
    """The same, and the file stays where it is: for who only wants to know."""
    path = place(directory, namespace, image)
    found = auth_files.read(path) if path is not None else None
    return Logins(given=found) if found is not None else None


def place(directory: Path, namespace: str, image: str) -> Path | None:
    """Where the file for a pull would be; None for a name that can have none."""
    if not _NAMESPACE.fullmatch(namespace):
        return None
    try:
        name = Reference.parse(image).name
    except Invalid:
        return None
    return directory / f"{namespace}-{hashlib.sha256(name.encode()).hexdigest()}.json"
