"""Hear at once that the kernel has killed a process of a container that lives on, because its memory was used up.

Conmon waits for the kernel's word (an eventfd on version 1 of cgroups, inotify on version 2) and makes the file `oom` in the
bundle; we wait for that file, with one inotify descriptor for all containers and one watch for each, and no thread. Of later
kills in the same container nothing further is heard: its exit has the counter (`monitor.oom`).
Source: conmon 2.1, src/cgroup.c.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from criollo.linux.inotify import IN_CREATE, Inotify
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_FILE: Final = b"oom"


class OomAlerts:
    """Calls `told` with the container's id, on the loop, at most once for each. To be used on the loop."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._inotify: Inotify | None = None
        self._containers: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._deaf = False

    def watch(self, container_id: str, bundle: Path) -> None:
        """Listen for a container. Where the kernel has no watch left, it is told once and nothing is heard."""
        if container_id in self._watches:
            return
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                asyncio.get_running_loop().add_reader(self._inotify.fd, self._read)
            watch = self._inotify.add(bundle, IN_CREATE)
        except OSError as error:
            if not self._deaf:
                self._deaf = True
                log.warning("kills for memory are told at the end of containers only", error=error.strerror, bundle=bundle)
            return
        self._containers[watch], self._watches[container_id] = container_id, watch

    def forget(self, container_id: str) -> None:
        """It has ended; may be repeated."""
        watch = self._watches.pop(container_id, None)
        if watch is not None and self._inotify is not None:
            del self._containers[watch]
            self._inotify.remove(watch)

    def close(self) -> None:
        """Hear nothing further."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._containers.clear()
        self._watches.clear()

    def _read(self) -> None:
        if self._inotify is None:
            return
        for event in self._inotify.read():
            container_id = self._containers.get(event.watch)
            if event.name == _FILE and container_id is not None:
                self._told(container_id)
