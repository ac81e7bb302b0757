"""`crio wipe`: take away containers, images or all, while no daemon runs and nothing runs in a container.

Without a kind, the files of `daemon.markers` say what is due, as for CRI-O: after a reboot containers, after an upgrade images
too; `-f` asks for both whatever they say. Nothing of other tools is touched: all is below root and runroot.
"""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

import click

from criollo.aio import threads
from criollo.config.host import Host, settle_on_host
from criollo.config.load import Loaded
from criollo.config.settings import Settings
from criollo.daemon.markers import Markers
from criollo.daemon.recovery import BOOT, recover
from criollo.engine.opening import Stores, hold, open_engine, open_stores
from criollo.errors import CriolloError, Damaged, Denied, WrongState, explain
from criollo.images.check import garbage, label
from criollo.images.collect import collect_layers
from criollo.linux import files, mount, procfs
from criollo.model.container import Container, ContainerState
from criollo.model.ids import short
from criollo.pods.teardown import tear_down
from criollo.state.records import State

CONTAINERS: Final = "containers"
IMAGES: Final = "images"
EVERYTHING: Final = "everything"
KINDS: Final = (CONTAINERS, IMAGES)
_LIVING: Final = (ContainerState.CREATED, ContainerState.RUNNING)
_OURS: Final = frozenset(  # below root, imagestore and runroot; what others keep there is not touched
    "ballast images.db images.db-shm images.db-wal images.db.new state.db state.db-shm state.db-wal state.db.new "
    "layers rootfs staging trash seals retired trees driver preload.json kpod cni pods containers seccomp trust".split()
)


class WipeWish(NamedTuple):
    """What to take away; no kinds: what is due. `sure` asks no files."""

    kinds: frozenset[str]
    sure: bool
    dry_run: bool


def run(loaded: Loaded, wish: WipeWish) -> int:
    """Do it, telling each thing; returns the exit status.

    Raises:
        Denied: not root.
        Unavailable: a daemon, or kpod, owns the root directory.
        WrongState: containers run.
    """
    if os.geteuid() != 0:
        raise Denied("cannot wipe: the stores are root's; use sudo")
    settings = settle_on_host(loaded, Host.here(os.environ)).settings
    markers = Markers.of(settings)
    kinds = wish.kinds or _due(markers, sure=wish.sure)
    if not kinds:
        click.echo("nothing is due: same boot, same version; --containers, --images, --all or -f wipe anyway")
        return 0
    with contextlib.ExitStack() as stack:
        if (store := markers.open_store()) is not None:
            stack.callback(os.close, store)
        try:
            if EVERYTHING in kinds:
                _everything(settings, dry_run=wish.dry_run)
            else:
                asyncio.run(_wipe(settings, kinds, dry_run=wish.dry_run))
        finally:
            threads.close()
        if not wish.dry_run:
            markers.wiped(store)
    return 0


def _due(markers: Markers, *, sure: bool) -> frozenset[str]:
    """What the files ask for; images never go without the containers that need them."""
    last = markers.read()
    if sure or last.upgraded:
        return frozenset(KINDS)
    return frozenset([CONTAINERS]) if last.rebooted and not last.wiped else frozenset()


async def _wipe(settings: Settings, kinds: frozenset[str], *, dry_run: bool) -> None:
    async with open_stores(settings, environ=os.environ) as stores:
        _refuse_living(stores.state)
        has_pods = bool(len(stores.state.pods) or len(stores.state.containers))
        if CONTAINERS in kinds:
            _tell_containers(stores.state, dry_run=dry_run)
        if dry_run:
            _tell_images(stores, kinds)
            return
    if CONTAINERS in kinds and has_pods:
        async with open_engine(settings, environ=os.environ) as engine:
            await recover(engine.pods)  # what cannot be read goes by what hangs on its id
            for pod in list(engine.pods.state.pods):
                await tear_down(engine.pods, pod.id)
    if IMAGES in kinds:
        async with open_stores(settings, environ=os.environ) as stores:
            await _wipe_images(stores)


async def _wipe_images(stores: Stores) -> None:
    images = stores.images
    for image in images.rows.all():
        users = images.in_use(image.id)
        if users:
            click.echo(f"kept image {label(image)}: container {', '.join(map(short, users[:3]))} needs it; use --all")
            continue
        images.rows.remove(image.id)
        click.echo(f"removed image {label(image)}")
    await collect_layers(images, kept_s=0)
    for name in await threads.files(garbage, images):
        await images.layers.remove(name)
    await images.layers.trash.empty()


def _tell_containers(state: State, *, dry_run: bool) -> None:
    verb = "would remove" if dry_run else "removing"
    for pod in state.pods:
        click.echo(f"{verb} pod {short(pod.id)} {pod.name}")
    for container in state.containers:
        click.echo(f"{verb} container {short(container.id)} {container.name}")


def _tell_images(stores: Stores, kinds: frozenset[str]) -> None:
    for image in stores.images.rows.all() if IMAGES in kinds else ():
        if CONTAINERS not in kinds and stores.images.in_use(image.id):
            click.echo(f"would keep image {label(image)}: a container needs it")
        else:
            click.echo(f"would remove image {label(image)}, {image.size_bytes / 1e6:.1f} MB")


def _refuse_living(state: State) -> None:
    """Raises WrongState when something runs: pids count only in the boot that they are of."""
    if state.fact(BOOT) != procfs.boot_id():
        return
    living = [each for each in state.containers if each.state in _LIVING and _lives(each)]
    if living:
        names = ", ".join(short(each.id) for each in living[:5])
        raise WrongState("stores", "this node", f"used by running containers ({names})", "no running container; drain it first")


def _lives(container: Container) -> bool:
    return procfs.is_alive(container.pid, container.pid_started)


def _everything(settings: Settings, *, dry_run: bool) -> None:
    """The whole content of root and run state, whether it can be read or not."""
    root = Path(settings.root)
    directories = dict.fromkeys((root, Path(settings.imagestore or root), Path(settings.runroot)))
    try:
        asyncio.run(_wipe(settings, frozenset([CONTAINERS]), dry_run=dry_run))
    except Damaged as error:
        click.echo(f"records cannot be read ({error}); their files are removed as they are", err=True)
        _refuse_mounted(root)
    with hold(settings):
        for directory in directories:
            for path in sorted(directory.iterdir()):
                if path.name not in _OURS:
                    continue
                click.echo(f"{'would remove' if dry_run else 'removing'} {path}")
                if not dry_run:
                    _remove(path)


def _refuse_mounted(root: Path) -> None:
    """Without records, a mounted root filesystem is the sign of a container that may run."""
    if mounted := mount.below(root / "rootfs"):
        raise WrongState("stores", str(root), f"in use: {mounted[0]} is mounted", "no mounted root filesystem; reboot the node")


def _remove(path: Path) -> None:
    with explain(f"remove {path}"):
        for target in mount.below(path):
            mount.unmount(target, detach=True)
        try:
            files.remove_tree(path)
        except OSError as error:
            raise CriolloError(f"cannot remove {path}: {error.strerror}; is something still mounted there?") from error
