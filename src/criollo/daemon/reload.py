"""SIGHUP: the configuration is read again, and what can change in a running daemon changes.

All or nothing: a configuration that cannot be used changes nothing. What changed and waits for a restart is named.
"""

import os
from collections.abc import Callable
from typing import Final

from criollo.aio import threads
from criollo.config.load import Loaded
from criollo.config.places import dotted, values_of
from criollo.config.settings import Settings
from criollo.engine.images import apply_image_settings, reload_registries
from criollo.engine.opening import Engine
from criollo.errors import CriolloError
from criollo.telemetry import log as logging

log = logging.get_logger(__name__)

Read = Callable[[], Loaded]


def _apply_log_level(engine: Engine, settings: Settings) -> None:
    logging.set_level(settings.runtime.log_level)


def _apply_images(engine: Engine, settings: Settings) -> None:
    apply_image_settings(settings, engine.images, engine.pods)


def _apply_cdi(engine: Engine, settings: Settings) -> None:
    engine.containers.additions.use_cdi_dirs(settings.runtime.cdi_spec_dirs)


_APPLIED: Final[dict[str, Callable[[Engine, Settings], None]]] = {
    "crio.runtime.log_level": _apply_log_level,
    "crio.runtime.cdi_spec_dirs": _apply_cdi,
    "crio.runtime.decryption_keys_path": _apply_images,
    "crio.image.pinned_images": _apply_images,
    "crio.image.pause_image": _apply_images,
    "crio.image.pause_command": _apply_images,
}


class Reloads:
    """The configuration in force, and how to read it again."""

    def __init__(self, engine: Engine, read: Read) -> None:
        self._engine, self._read = engine, read
        self._settings = engine.settings
        self._waiting: set[str] = set()

    async def reload(self) -> None:
        """Read everything again and apply it; whatever is wrong is logged and changes nothing."""
        try:
            loaded = await threads.files(self._read)
            await reload_registries(self._engine.images, loaded.settings, os.environ)
        except CriolloError as error:
            log.error("unable to reload configuration, the old one stays", error=error)
            return
        old = {dotted(place): value for place, _, value in values_of(self._settings)}
        new = {dotted(place): value for place, _, value in values_of(loaded.settings)}
        changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        for name in changed:
            if name in _APPLIED:
                _APPLIED[name](self._engine, loaded.settings)
                log.info("set config", key=name, value=new[name])
            elif name not in self._waiting:
                log.warning("configuration changed, a restart is needed for it", key=name)
        # What waits for a restart is told once, and again when it changes once more.
        self._waiting = {name for name in changed if name not in _APPLIED}
        self._settings = loaded.settings
        log.info("configuration reload completed", changed=len(changed))
