"""The hooks of a node: which of them a container gets.

    /usr/share/containers/oci/hooks.d/*.json     of packages
    /etc/containers/oci/hooks.d/*.json           of the administrator, where `hooks_dir` names it

A file in a later directory takes the place of one of the same name in an earlier one. Files are read when the first container
is made, and again after a change. A file that cannot be read is named in the log and leaves the others alone. Hooks run in
the order of the names of their files. Blocking: for a thread. Source: oci-hooks(5).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from criollo.aio.watch import Remembered
from criollo.errors import Invalid, NotFound
from criollo.linux.files import read_limited
from criollo.linux.near import is_near
from criollo.oci.runtime_spec import Hook, Hooks
from criollo.telemetry.log import get_logger

if TYPE_CHECKING:
    from criollo.hooks.document import HookFile

log = get_logger(__name__)

_MOST_FILES: Final = 1000  # of a directory


class HookDirectories:
    """The hook files of a node. Safe to share between threads."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = tuple(directories)
        self._told: dict[str, str] = {}
        self._files = Remembered([Path(each) for each in self._directories], self._load)

    def is_empty(self) -> bool:
        """Whether no container gets any hook."""
        return not self._files.get()

    def of(self, annotations: Mapping[str, str], command: str, *, has_bind_mounts: bool) -> Hooks | None:
        """The hooks of a container, None without any. `annotations` are the pod's and its own, `command` what it runs.

        Raises:
            NotFound: a hook that it must have is no program.
        """
        stages: dict[str, list[Hook]] = {}
        for file in self._files.get():
            if not file.when.holds(annotations, command, has_bind_mounts=has_bind_mounts):
                continue
            if is_near(file.hook.path) and not os.access(file.hook.path, os.X_OK):  # else the runtime, which has a limit, tells
                raise NotFound(
                    "OCI hook", file.hook.path, f"{file.path} wants it for this container; install it, or remove the file"
                )
            for stage in file.stages:
                stages.setdefault(stage, []).append(file.hook)
        return Hooks(**{stage: tuple(hooks) for stage, hooks in stages.items()}) if stages else None

    def close(self) -> None:
        self._files.close()

    def _load(self) -> "tuple[HookFile, ...]":
        names: dict[str, str] = {}
        for directory in self._directories:
            names |= {name: os.path.join(directory, name) for name in _names(directory)}
        if not names:
            return ()
        from criollo.hooks.document import LIMIT_BYTES, read_hook  # most nodes have none

        found: list[HookFile] = []
        broken: dict[str, str] = {}
        for name in sorted(names, key=lambda name: (name.lower(), name)):
            path = names[name]
            try:
                found.append(read_hook(read_limited(path, LIMIT_BYTES), path))
            except FileNotFoundError:
                continue  # it went away meanwhile
            except (Invalid, OSError) as error:
                broken[path] = str(error) if isinstance(error, Invalid) else str(error.strerror)
        for path, why in broken.items():
            if self._told.get(path) != why:
                log.error("OCI hook file cannot be used: containers run without this hook", path=path, error=why)
        self._told = broken
        return tuple(found)


def _names(directory: str) -> list[str]:
    try:
        found = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("directory of OCI hooks cannot be read", path=directory, error=error.strerror)
        return []
    if len(found) > _MOST_FILES:
        log.warning("too many OCI hook files; the last ones are left out", path=directory, files=len(found), read=_MOST_FILES)
    return found[:_MOST_FILES]
