"""What an exec starts from: the process of the container's own spec, read and decoded once.

A bundle's config.json is written once and never changed; it is looked at each time all the same, because a bundle that was
lost must not be remembered as there.
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.errors import Damaged, NotFound
from criollo.linux import files
from criollo.oci import runtime_spec

_REMEMBERED: Final = 512  # containers with probes, those used last; a few KiB each
_Identity = tuple[int, int, int]


class FirstProcesses:
    """The processes of containers' specs, by container."""

    def __init__(self, *, remembered: int = _REMEMBERED) -> None:
        self._known: OrderedDict[str, tuple[_Identity, runtime_spec.Process]] = OrderedDict()
        self._remembered = remembered

    async def of(self, container_id: str, path: Path, *, limit_bytes: int) -> runtime_spec.Process:
        """The process that the spec at `path` describes.

        Raises:
            NotFound: the spec is gone or no spec.
            Damaged: it describes no process.
        """
        try:
            now = _identity(path)
            known = self._known.get(container_id)
            if known is not None and known[0] == now:
                self._known.move_to_end(container_id)
                return known[1]
            spec = runtime_spec.decode(await threads.files(files.read_limited, path, limit_bytes))
        except (OSError, msgspec.MsgspecError) as error:
            raise NotFound("bundle", str(path), f"container {container_id} has lost it; remove the container") from error
        if spec.process is None:
            raise Damaged(f"spec of container {container_id} has no process; remove the container")
        self._known[container_id] = now, spec.process
        while len(self._known) > self._remembered:
            self._known.popitem(last=False)
        return spec.process


def _identity(path: Path) -> _Identity:
    """Tells one file from another; on the tmpfs of the run state this takes microseconds."""
    status = os.stat(path)
    return status.st_ino, status.st_mtime_ns, status.st_size
