"""What of the configuration may change while the daemon runs: read first, all of it; applied only when all can be used.

GROUPS      which keys belong together
prepare     for each group a function that applies it; nothing has changed before it is called
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from criollo.aio import threads
from criollo.config.settings import Settings
from criollo.containers.rules import open_rules
from criollo.engine.containers import open_seccomp, reopen_handlers
from criollo.engine.images import apply_image_settings
from criollo.engine.opening import Engine
from criollo.telemetry import log as logging

Apply = Callable[[], object]
_HANDLERS: Final = "crio.runtime.runtimes."

GROUPS: Final[Mapping[str, str]] = {
    "crio.runtime.log_level": "log",
    "crio.runtime.log_filter": "log",
    "crio.runtime.cdi_spec_dirs": "cdi",
    "crio.runtime.decryption_keys_path": "images",
    "crio.image.registries_conf": "images",  # read again in any case
    "crio.image.registries_conf_dir": "images",
    "crio.image.short_name_mode": "images",
    "crio.image.pinned_images": "images",
    "crio.image.pause_image": "images",
    "crio.image.pause_image_auth_file": "images",
    "crio.image.pause_command": "images",
    "crio.runtime.seccomp_profile": "seccomp",
    "crio.runtime.privileged_seccomp_profile": "seccomp",
    "crio.runtime.apparmor_profile": "apparmor",
    "crio.runtime.blockio_config_file": "classes",
    "crio.runtime.blockio_reload": "classes",
    "crio.runtime.rdt_config_file": "classes",
    "crio.runtime.default_runtime": "handlers",
}
"""The group of each key that changes in a running daemon; the others wait for a restart."""


def group_of(key: str) -> str:
    """The group of a key, empty for one that waits for a restart."""
    return "handlers" if key.startswith(_HANDLERS) else GROUPS.get(key, "")


async def prepare(engine: Engine, settings: Settings, group: str) -> Apply:
    """Read what a group's settings name, and return what applies them.

    Raises:
        CriolloError: they cannot be used; nothing has changed.
    """
    return await _PREPARE[group](engine, settings)


async def _log(engine: Engine, settings: Settings) -> Apply:
    def apply() -> None:
        logging.set_level(settings.runtime.log_level)
        logging.set_filter(settings.runtime.log_filter)

    return apply


async def _images(engine: Engine, settings: Settings) -> Apply:
    return lambda: apply_image_settings(settings, engine.images, engine.pods)


async def _cdi(engine: Engine, settings: Settings) -> Apply:
    return lambda: engine.containers.additions.use_cdi_dirs(settings.runtime.cdi_spec_dirs)


async def _seccomp(engine: Engine, settings: Settings) -> Apply:
    """Also when no key has changed: the file may have."""
    profiles = await threads.files(open_seccomp, settings, engine.host)

    def apply() -> None:
        engine.containers.seccomp = profiles

    return apply


async def _apparmor(engine: Engine, settings: Settings) -> Apply:
    containers = engine.containers
    if not containers.host.apparmor:
        return lambda: None
    from criollo.security.apparmor import open_apparmor  # few nodes have it

    found = await open_apparmor(settings.runtime.apparmor_profile, record=containers.places.runroot / "apparmor")

    def apply() -> None:
        containers.apparmor = found

    return apply


async def _classes(engine: Engine, settings: Settings) -> Apply:
    found = await threads.files(open_rules, settings.runtime)
    containers = engine.containers

    def apply() -> None:
        containers.rules = msgspec.structs.replace(containers.rules, block_io=found.block_io, rdt=found.rdt)

    return apply


async def _handlers(engine: Engine, settings: Settings) -> Apply:
    """With all that their tables say: annotations, limits, affinity, seccomp profiles."""
    containers = engine.containers
    reopened = await reopen_handlers(settings, containers)
    profiles = await threads.files(open_seccomp, settings, engine.host)
    found = await threads.files(open_rules, settings.runtime)

    def apply() -> None:
        reopened()
        containers.seccomp = profiles
        containers.rules = msgspec.structs.replace(
            containers.rules,
            exec_on_first=found.exec_on_first,
            exec_in_container=found.exec_in_container,
            isolates_cpus=found.isolates_cpus,
        )

    return apply


_PREPARE: Final[Mapping[str, Callable[[Engine, Settings], Awaitable[Apply]]]] = {
    "log": _log,
    "images": _images,
    "cdi": _cdi,
    "seccomp": _seccomp,
    "apparmor": _apparmor,
    "classes": _classes,
    "handlers": _handlers,
}
