"""Opening all of it in order, closing it in reverse; whose the directories are.

One process at a time owns a root directory, and a directory of run state: the daemon, or kpod while none runs. Locks say
which; recovery and sweep may take all they find there for their own.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from criollo.aio.background import Background
from criollo.config.settings import Settings
from criollo.containers.context import Containers, Places
from criollo.engine.containers import open_containers
from criollo.engine.images import follow_registries, open_registry, open_roots, read_stores, settle_images
from criollo.engine.pods import open_pods
from criollo.errors import Unavailable, explain
from criollo.images.context import Images
from criollo.images.scrub import Plan, Scrub
from criollo.linux.cgroup import Driver
from criollo.linux.files import PASS, make_directory, remove_unfinished, try_lock
from criollo.linux.home import with_home
from criollo.network.cni import Cni
from criollo.pods import cgroups
from criollo.pods.context import Pods
from criollo.runtimes.handlers import Handlers
from criollo.specgen.host import HostFacts
from criollo.state.ballast import Ballast
from criollo.state.images import ImageRows
from criollo.state.records import State
from criollo.storage.layers import Layers
from criollo.storage.storage_conf import StorageConf
from criollo.telemetry.log import get_logger
from criollo.workers.pool import Workers

log = get_logger(__name__)

LOCK: Final = "lock"
PRIVATE_SOCKET: Final = "kpod.sock"  # in the run state: where a kpod that owns it serves itself


class InForce:
    """The settings that hold now: those of the start, but for what has changed since without a restart."""

    __slots__ = ("settings",)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Engine(NamedTuple):
    """What the faces need: the verbs' contexts and the facts they report."""

    settings: Settings
    pods: Pods
    containers: Containers
    images: Images
    handlers: Handlers
    network: Cni
    host: HostFacts
    driver: Driver
    scrub: Scrub
    in_force: InForce


@contextlib.asynccontextmanager
async def open_engine(settings: Settings, *, environ: Mapping[str, str]) -> AsyncIterator[Engine]:
    """Open everything below the faces. Watchers end with the block; containers go on.

    Raises:
        Unavailable: another process owns the root directory or the run state.
        Invalid, Unsupported, Damaged, HostFailed: a setting, the host or a database does not let us start.
    """
    async with contextlib.AsyncExitStack() as stack:
        ground = _own_ground(stack, settings, with_home(environ))
        workers = Workers()
        stack.push_async_callback(workers.close)
        tasks = await stack.enter_async_context(Background())
        images, state = await _open_stores(stack, ground, workers)
        await _open_roots(stack, ground, images, tasks)
        containers = await open_containers(settings, state, images, ground.places, tasks=tasks)
        stack.callback(containers.handlers.close)
        stack.push_async_callback(containers.close)
        stack.push_async_callback(cgroups.drop_default, containers)
        pods = await open_pods(settings, containers)
        stack.push_async_callback(pods.close)
        stack.push_async_callback(images.pulls.close, limit_s=0)
        for ballast in {ground.ballast, ground.image_ballast}:
            tasks.start(ballast.keep(), name="keep room for the databases")
        if settings.image.auto_reload_registries:
            tasks.start(follow_registries(images, settings, ground.environ), name="follow registries.conf")
        yield Engine(
            settings,
            pods,
            containers,
            images,
            containers.handlers,
            pods.network,
            containers.host,
            containers.cgroup_driver,
            Scrub(images, Plan(settings.care.scrub_rate.bytes, settings.care.scrub_every.seconds)),
            InForce(settings),
        )


class Stores(NamedTuple):
    """Images and what exists, without anything that runs."""

    images: Images
    state: State


@contextlib.asynccontextmanager
async def open_stores(settings: Settings, *, environ: Mapping[str, str]) -> AsyncIterator[Stores]:
    """Open images and records alone, to check or to wipe them while nobody owns them. Nothing is recovered or swept.

    Raises:
        Unavailable: another process owns the root directory.
        Invalid, Damaged, HostFailed: a setting or a database does not let us.
    """
    async with contextlib.AsyncExitStack() as stack:
        ground = _own_ground(stack, settings, with_home(environ))
        make_directory(ground.places.root / "rootfs", 0o700, keep=PASS)
        workers = Workers()
        stack.push_async_callback(workers.close)
        yield await _open_stores(stack, ground, workers)


class _Ground(NamedTuple):
    """What all is opened on: the directories, which are ours alone by now, and what this host says of stores."""

    settings: Settings
    environ: Mapping[str, str]
    places: Places
    image_root: Path
    ballast: Ballast
    image_ballast: Ballast  # the same, unless images are on another file system
    storage_conf: StorageConf


def _own_ground(stack: contextlib.AsyncExitStack, settings: Settings, environ: Mapping[str, str]) -> _Ground:
    places = _places(settings)
    image_root = _image_root(settings, places)
    for directory in dict.fromkeys((places.root.resolve(), image_root.resolve(), places.runroot.resolve())):
        _own(stack, directory)
        with explain(f"sweep {directory}"):
            remove_unfinished(directory)  # before anybody writes one
    with explain(f"sweep {places.runroot}"):
        (places.runroot / PRIVATE_SOCKET).unlink(missing_ok=True)
    ballast = image_ballast = Ballast(places.root / "ballast")
    if image_root != places.root:
        image_ballast = Ballast(image_root / "ballast")
    for each in (ballast, image_ballast):
        each.release()  # what comes next has room
    return _Ground(settings, environ, places, image_root, ballast, image_ballast, StorageConf(environ))


async def _open_stores(stack: contextlib.AsyncExitStack, ground: _Ground, workers: Workers) -> Stores:
    """The databases, the layers and who fetches them; root filesystems are not opened."""
    rows = ImageRows(ground.image_root / "images.db", make_room=ground.image_ballast.release)
    stack.callback(rows.close)
    state = State(ground.places.root / "state.db", make_room=ground.ballast.release)
    stack.callback(state.close)
    layers = Layers(ground.image_root)
    stack.callback(layers.close)
    await layers.open()
    roots = open_roots(ground.settings, layers, workers, ground.places.root, conf=ground.storage_conf)
    registry = open_registry(ground.settings, ground.environ)
    stack.push_async_callback(registry.close)
    images = Images(rows, layers, roots=roots, workers=workers, registry=registry)
    settle_images(ground.settings, ground.environ, images, state)
    return Stores(images, state)


async def _open_roots(stack: contextlib.AsyncExitStack, ground: _Ground, images: Images, tasks: Background) -> None:
    """Root filesystems, and what brings images to the disk and sees those of others."""
    await images.roots.open()
    stack.push_async_callback(images.roots.close)
    stack.push_async_callback(images.flush.rest)
    tasks.start(images.flush.follow(), name="flush images")
    await read_stores(ground.settings, ground.storage_conf, images, tasks=tasks)


@contextlib.contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Own root and run state for a block, without opening anything. Raises Unavailable."""
    with contextlib.ExitStack() as stack:
        places = _places(settings)
        for directory in dict.fromkeys((places.root, _image_root(settings, places), places.runroot)):
            _own(stack, directory.resolve())
        yield


def _places(settings: Settings) -> Places:
    places = Places(Path(settings.root), Path(settings.runroot), namespaces=Path(settings.runtime.namespaces_dir))
    with explain(f"make the directories of {settings.root}"):
        make_directory(places.root, 0o700, keep=PASS)
        for directory in (places.runroot, places.runroot / "containers", places.runroot / "pods"):
            make_directory(directory, 0o700)
        for text in (settings.runtime.container_exits_dir, settings.runtime.container_attach_socket_dir):
            make_directory(text, 0o700)
    return places


def _image_root(settings: Settings, places: Places) -> Path:
    """Where layers and the database of images are: `imagestore`, else the root."""
    image_root = Path(settings.imagestore or places.root)
    if image_root.resolve() == places.root.resolve():
        return places.root
    with explain(f"make the directory of imagestore {image_root}"):
        make_directory(image_root, 0o700, keep=PASS)
    if (places.root / "images.db").exists():
        log.warning("images in the root are not seen while imagestore is set; remove them before", root=places.root)
    return image_root


def _own(stack: contextlib.ExitStack | contextlib.AsyncExitStack, root: Path) -> None:
    """Hold the root's lock until the stack is closed; the kernel lets go of it when we die."""
    with explain(f"lock {root}"):
        fd = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    if not try_lock(fd):
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        raise Unavailable(f"cannot open {root}: process {owner or '(unknown)'} owns it; stop that one first")
    with contextlib.suppress(OSError):  # on a full disk the message above is worse, and no more
        os.pwrite(fd, f"{os.getpid():<32}".encode(), 0)
