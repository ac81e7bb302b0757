"""Images: their store and driver, registries, trust; what of it may change while the daemon runs."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from criollo import __version__
from criollo.aio import threads
from criollo.aio.background import Background
from criollo.aio.watch import changes
from criollo.config.settings import Settings
from criollo.errors import CriolloError, Invalid
from criollo.images.context import Images
from criollo.images.foreign import ForeignImages
from criollo.linux.home import with_home
from criollo.pods.context import Pods
from criollo.registry import namespaced
from criollo.registry.auth_files import find_auth_files
from criollo.registry.certs import find_directories
from criollo.registry.client import Registry
from criollo.registry.conf_files import ConfFiles, find_aliases_file, find_registries_conf
from criollo.registry.hosts import Hosts
from criollo.registry.logins import Logins
from criollo.registry.registries_conf import Mode
from criollo.registry.registries_d import find_directory
from criollo.state.records import State
from criollo.storage.base import LayerDriver
from criollo.storage.layers import Layers
from criollo.storage.options import Options, parse_options
from criollo.storage.overlay import Overlay
from criollo.storage.rootfs import RootStore
from criollo.storage.storage_conf import StorageConf, driver_options, find_stores, find_unfollowed
from criollo.telemetry.log import get_logger
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import EXAMPLE, SYSTEM_FILE, Policy, find_policy
from criollo.workers.pool import Workers

log = get_logger(__name__)


def _overlay(layers: Layers, workers: Workers, root: Path, options: Options) -> LayerDriver:
    return Overlay(layers, root=root, flags=options.mount_flags)


def _btrfs(layers: Layers, workers: Workers, root: Path, options: Options) -> LayerDriver:
    from criollo.storage.btrfs import Btrfs  # overlay is what nearly all have

    return Btrfs(layers, workers, root)


def _vfs(layers: Layers, workers: Workers, root: Path, options: Options) -> LayerDriver:
    from criollo.storage.vfs import Vfs

    return Vfs(layers, workers, root)


DRIVERS: Final[dict[str, Callable[[Layers, Workers, Path, Options], LayerDriver]]] = {
    "overlay": _overlay,
    "btrfs": _btrfs,
    "vfs": _vfs,
}


def open_roots(settings: Settings, layers: Layers, workers: Workers, root: Path, *, conf: StorageConf) -> RootStore:
    options = storage_options(settings, conf)
    for option in options.without_effect:
        log.warning("storage option has no effect here", option=option, remedy="take it out of storage_option or storage.conf")
    driver = DRIVERS[settings.storage_driver](layers, workers, root, options)
    return RootStore(root, layers, driver, limit=options.limit)


def storage_options(settings: Settings, conf: StorageConf) -> Options:
    """The options of the storage driver: of crio.conf, else of storage.conf.

    Raises:
        Invalid, HostFailed: one is no option, or storage.conf is malformed or cannot be read.
    """
    driver = settings.storage_driver
    if settings.storage_option:
        return parse_options(driver, settings.storage_option)
    try:
        return parse_options(driver, driver_options(conf, driver))
    except Invalid as error:
        field = error.field if str(conf.path) in error.field else f"{conf.path}: {error.field}"
        raise Invalid(field, error.got, error.expected) from None


async def read_stores(settings: Settings, conf: StorageConf, images: Images, *, tasks: Background) -> None:
    """Let the images of other tools' stores be seen."""
    stores = find_stores(conf, settings.storage_option)
    ours = {
        "driver": settings.storage_driver,
        "imagestore": settings.imagestore,
        "graphroot": settings.root,
        "runroot": settings.runroot,
    }
    for each in find_unfollowed(conf, ours):
        log.warning("no effect here", of=each.name, file=conf.path, remedy=each.remedy)
    if stores and settings.storage_driver != "overlay":
        log.warning("additional image stores are left out: only the overlay driver reads them", stores=len(stores))
    elif stores:
        images.foreign = ForeignImages(stores, images.layers, images.workers)
        tasks.start(images.foreign.follow(), name="look at image stores")
        await images.foreign.refresh()


def open_registry(settings: Settings, environ: Mapping[str, str]) -> Registry:
    """The registry client as the configuration and the files of this host have it; without a HOME the user database says it.

    Raises:
        Invalid: a file of registries is malformed; the message names it.
    """
    environ = with_home(environ)
    auth = settings.image.global_auth_file
    return Registry(
        _hosts(settings, environ),
        user_agent=f"criollo/{__version__}",
        auth_paths=[Path(auth)] if auth else find_auth_files(environ, os.getuid()),
        environ=environ,
    )


def _conf_files(settings: Settings, environ: Mapping[str, str]) -> ConfFiles:
    image = settings.image
    return find_registries_conf(environ, conf=image.registries_conf, directory=image.registries_conf_dir)


def _hosts(settings: Settings, environ: Mapping[str, str]) -> Hosts:
    mode = settings.image.short_name_mode
    return Hosts.load(
        *_conf_files(settings, environ),
        aliases_file=find_aliases_file(environ, os.getuid()),
        directories=find_directories(environ),
        mode=Mode(mode) if mode else None,
    )


async def follow_registries(images: Images, settings: Settings, environ: Mapping[str, str]) -> None:
    """Read the files of registries again after each change; ones that are wrong change nothing."""
    conf, directories = _conf_files(settings, environ)
    watched = [*((conf.parent,) if conf is not None else ()), *directories]
    async with contextlib.aclosing(changes(watched)) as bursts:
        async for _ in bursts:
            try:
                await reload_registries(images, settings, environ)
            except CriolloError as error:
                log.warning("registries.conf cannot be used, the old rules stay", error=error)
                continue
            log.info("registries.conf read again")


async def reload_registries(images: Images, settings: Settings, environ: Mapping[str, str]) -> None:
    """Read the files of registries again.

    Raises:
        Invalid: one is malformed; the old rules stay.
    """
    hosts = await threads.files(_hosts, settings, with_home(environ))
    images.registry.use(hosts)
    images.hosts = hosts


def open_policies(settings: Settings, environ: Mapping[str, str]) -> Policies:
    """The trust policies as the configuration has them."""
    path, directory = settings.image.signature_policy, settings.image.signature_policy_dir
    return Policies(Path(path) if path else None, directory=Path(directory) if directory else None, environ=with_home(environ))


def _open_judge(settings: Settings, environ: Mapping[str, str]) -> Judge:
    """Who judges images; a policy of the node that cannot be used does not let us start.

    Raises:
        Invalid: the policy is malformed.
    """
    path = settings.image.signature_policy
    found = Path(path) if path else find_policy(environ)
    if found is None:
        log.warning("no signature policy: every image is refused", remedy=f"write {SYSTEM_FILE}, for example {EXAMPLE}")
    else:
        Policy.load(found)
    scratch = Path(settings.runroot) / "trust"
    if scratch.exists():
        from criollo.trust.gpg import remove_leftovers

        remove_leftovers(scratch)
    return Judge(open_policies(settings, environ), scratch=scratch)


def apply_image_settings(settings: Settings, images: Images, pods: Pods | None = None) -> None:
    """What of the configuration may change while the daemon runs, beside registries."""
    image = settings.image
    images.pinned = (*image.pinned_images, *([image.pause_image] if image.pause_image else []))
    images.decryption_keys = Path(settings.runtime.decryption_keys_path)
    own = image.pause_image_auth_file and image.pause_image
    images.own_logins = {image.pause_image: Logins((Path(image.pause_image_auth_file),))} if own else {}
    if pods is not None:
        pods.pause_image = image.pause_image
        pods.pause_command = tuple(image.pause_command.split())


def settle_images(settings: Settings, environ: Mapping[str, str], images: Images, state: State) -> None:
    """Tell the images what they work with besides their drivers."""
    images.in_use = functools.partial(_users_of, state)
    images.judge = _open_judge(settings, environ)
    images.signatures_conf = find_directory(environ)
    namespaced = settings.image.namespaced_auth_dir
    images.namespaced_auth_dir = Path(namespaced) if namespaced else None
    if images.namespaced_auth_dir is not None:
        _forget_taken(images.namespaced_auth_dir)
    apply_image_settings(settings, images)
    big_files = settings.image.big_files_temporary_dir
    images.big_files = Path(big_files) if big_files else None
    images.mounts_artifacts = settings.image.oci_artifact_mount_support
    images.progress_timeout_s = settings.image.pull_progress_timeout.seconds


def _forget_taken(directory: Path) -> None:
    """Nobody pulls yet: what is in use is of a daemon that was killed."""
    try:
        namespaced.forget(directory)
    except CriolloError as error:
        log.error("credentials that a killed daemon had in use stay on the disk", error=error)


def _users_of(state: State, image_id: str) -> list[str]:
    """The containers that need an image."""
    return [each.id for each in state.containers if image_id == each.image_id or image_id in each.volume_images]
