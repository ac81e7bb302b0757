"""Hear at once that the kernel has killed a process of a container that lives on, because its memory was used up.

On version 2 of cgroups we watch the counters of the container's cgroup (`memory.events`, of which the kernel tells at most
every 10 ms). On version 1 conmon waits for the kernel's word and makes the file `oom` in the bundle, and we wait for that. It
would not do on version 2: there conmon stops to listen at the first change that is no kill, such as the limit being met.
One inotify descriptor serves all containers, with one watch for each, and no thread. Of later kills in the same container
nothing further is heard: its exit has the counter (`monitor.oom`).
Source: kernel, cgroup-v2.rst (memory.events); conmon 2.1, src/cgroup.c.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import Exhausted
from criollo.linux.inotify import IN_CREATE, IN_MODIFY, Inotify
from criollo.monitor.oom import kill_count
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_FILE: Final = b"oom"


class _Watched(NamedTuple):
    container_id: str
    events: Path | None  # its counters; else conmon tells
    known: int = 0


class OomAlerts:
    """Calls `told` with the container's id, on the loop, at most once for each. To be used on the loop."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._inotify: Inotify | None = None
        self._containers: dict[int, _Watched] = {}
        self._watches: dict[str, int] = {}
        self._deaf = False

    def watch(self, container_id: str, bundle: Path, events: Path | None = None, *, is_new: bool = True) -> None:
        """Listen for a container: to its counters, where there are any. A new one's kills count from its start.

        Where the kernel has no watch left, it is told once and nothing is heard.
        """
        if container_id in self._watches:
            return
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                asyncio.get_running_loop().add_reader(self._inotify.fd, self._read)
            watch, watched = _begin(self._inotify, container_id, bundle, events)
        except OSError as error:
            if not self._deaf:
                self._deaf = True
                log.warning("kills for memory are told at the end of containers only", error=error.strerror, bundle=bundle)
            return
        if watched.events is not None and not is_new:
            watched = watched._replace(known=_count(watched.events))
        self._containers[watch], self._watches[container_id] = watched, watch
        self._look(watched)

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
            watched = self._containers.get(event.watch)
            if watched is None:
                continue
            if watched.events is not None:
                self._look(watched)
            elif event.name == _FILE:
                self._told(watched.container_id)

    def _look(self, watched: _Watched) -> None:
        """Tell of a kill if one is counted, and listen no longer: a container at its limit has many events."""
        if watched.events is not None and _count(watched.events) > watched.known:
            self.forget(watched.container_id)
            self._told(watched.container_id)


def _count(events: Path) -> int:
    try:
        return kill_count(events) or 0
    except Exhausted:  # the next event tells, or the exit
        return 0


def _begin(inotify: Inotify, container_id: str, bundle: Path, events: Path | None) -> tuple[int, _Watched]:
    if events is not None:
        try:
            return inotify.add_file(events, IN_MODIFY), _Watched(container_id, events)
        except FileNotFoundError:  # no controller for memory there
            pass
    return inotify.add(bundle, IN_CREATE), _Watched(container_id, None)
