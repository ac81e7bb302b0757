"""SIGHUP: the configuration is read again, and what can change in a running daemon changes.

All or nothing: a configuration that cannot be used changes nothing. What changed and waits for a restart is named, key by key.
"""

import os
from collections.abc import Callable, Collection
from typing import TypeVar

import msgspec

from criollo.aio import threads
from criollo.config.keys import Table
from criollo.config.load import Loaded
from criollo.config.places import dotted, values_of
from criollo.config.settings import Settings
from criollo.engine.images import reload_registries
from criollo.engine.opening import Engine
from criollo.engine.reloading import GROUPS, group_of, prepare
from criollo.errors import CriolloError
from criollo.telemetry import log as logging

log = logging.get_logger(__name__)

Read = Callable[[], Loaded]
T = TypeVar("T", bound=Table)


class Reloads:
    """The configuration as it was read last, the one in force, and how to read it again."""

    def __init__(self, engine: Engine, read: Read) -> None:
        self._engine, self._read = engine, read
        self._settings = engine.settings
        self._waiting: set[str] = set()

    async def reload(self) -> None:
        """Read everything again and apply it; whatever is wrong is logged and changes nothing."""
        try:
            loaded = await threads.files(self._read)
            changed = changes(self._settings, loaded.settings)
            in_force = merged(self._engine.in_force.settings, loaded.settings)
            groups = {group_of(key) for key in changed} - {""} | _always(in_force)
            applies = [await prepare(self._engine, in_force, group) for group in sorted(groups)]
            await reload_registries(self._engine.images, loaded.settings, os.environ)
        except CriolloError as error:
            log.error("unable to reload configuration, the old one stays", error=error)
            return
        for apply in applies:
            apply()
        self._engine.in_force.settings = in_force
        self._tell(changed)
        self._settings = loaded.settings
        log.info("configuration reload completed", changed=len(changed))

    def _tell(self, changed: dict[str, object]) -> None:
        waiting = {key for key in changed if not group_of(key)}
        for key, value in changed.items():
            if key not in waiting:
                log.info("set config", key=key, value=value)
            elif key not in self._waiting:
                log.warning("configuration changed, a restart is needed for it", key=key)
        # What waits for a restart is told once, and again when it changes once more.
        self._waiting = waiting


def changes(old: Settings, new: Settings) -> dict[str, object]:
    """The keys whose values differ, with the new ones; None for one that is gone."""
    before = {dotted(place): value for place, _, value in values_of(old)}
    after = {dotted(place): value for place, _, value in values_of(new)}
    return {key: after.get(key) for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)}


def merged(old: Settings, new: Settings) -> Settings:
    """The old settings with what may change while the daemon runs as the new ones have it."""
    keys = [*GROUPS, "crio.runtime.runtimes"]
    return msgspec.structs.replace(
        old,
        runtime=_taken(old.runtime, new.runtime, _names(keys, "crio.runtime.")),
        image=_taken(old.image, new.image, _names(keys, "crio.image.")),
    )


def _names(keys: Collection[str], table: str) -> list[str]:
    return [key.removeprefix(table) for key in keys if key.startswith(table)]


def _taken(old: T, new: T, names: Collection[str]) -> T:
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in names})


def _always(settings: Settings) -> set[str]:
    """Groups whose files may have changed while their keys have not."""
    runtime = settings.runtime
    profiles = runtime.seccomp_profile or any(handler.seccomp_profile for handler in runtime.runtimes.values())
    return ({"seccomp"} if profiles else set()) | (
        {"classes"} if runtime.blockio_config_file or runtime.rdt_config_file else set()
    )
