"""The only wiring: settings become drivers, drivers become the domain; closed in reverse.

One process at a time owns a root directory, and a directory of run state: the daemon, or kpod while none runs. Locks say
which; recovery and sweep may take all they find there for their own.
"""

import contextlib
import fcntl
import functools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from criollo import __version__
from criollo.aio import threads
from criollo.aio.background import Background
from criollo.aio.watch import changes
from criollo.config.handlers import RuntimeHandler
from criollo.config.settings import Settings
from criollo.containers.context import Containers, Places
from criollo.errors import CriolloError, Unavailable, Unsupported, explain
from criollo.images.context import Images
from criollo.images.foreign import ForeignImages
from criollo.images.scrub import Plan, Scrub
from criollo.linux.cgroup import DEFAULT_PARENT, Driver, Hierarchies
from criollo.linux.files import PASS, make_directory
from criollo.model.container import Device
from criollo.monitor.conmon import Conmon
from criollo.network.cni import Cni
from criollo.pods import namespaces
from criollo.pods.context import Pods
from criollo.pods.events import Events
from criollo.registry.auth_files import find_auth_files
from criollo.registry.certs import find_directories
from criollo.registry.client import Registry
from criollo.registry.hosts import Hosts
from criollo.registry.registries_conf import Mode, find_aliases_file, find_registries_conf
from criollo.registry.registries_d import find_directory
from criollo.runtimes.base import Probe, Runtime
from criollo.runtimes.handlers import Handlers, open_handlers
from criollo.runtimes.oci import Handler, OciRuntime
from criollo.security.seccomp import Profiles
from criollo.specgen.host import HostFacts, gather
from criollo.specgen.request import Defaults
from criollo.specgen.rlimits import parse_ulimit
from criollo.state.ballast import Ballast
from criollo.state.images import ImageRows
from criollo.state.records import State
from criollo.stats.collect import Collector
from criollo.storage.base import LayerDriver
from criollo.storage.layers import Layers
from criollo.storage.options import Options, parse_options
from criollo.storage.overlay import Overlay
from criollo.storage.rootfs import RootStore
from criollo.storage.storage_conf import find_storage_conf, find_stores
from criollo.telemetry.log import get_logger
from criollo.trust.gpg import remove_leftovers
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy, find_policy
from criollo.wire.runtime import mounting, precompiles_seccomp, repeats_mappings
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
LOCK: Final = "lock"
MOUNT_SETATTR_SINCE: Final = (5, 12)  # mount_setattr(2): recursive read-only and id-mapped mounts


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


@contextlib.asynccontextmanager
async def open_engine(settings: Settings, *, environ: Mapping[str, str]) -> AsyncIterator[Engine]:
    """Open everything below the faces. Watchers end with the block; containers go on.

    Raises:
        Unavailable: another process owns the root directory or the run state.
        Invalid, Unsupported, Damaged, HostFailed: a setting, the host or a database does not let us start.
    """
    async with contextlib.AsyncExitStack() as stack:
        places = _places(settings)
        image_root = _image_root(settings, places)
        for directory in dict.fromkeys((places.root.resolve(), image_root.resolve(), places.runroot.resolve())):
            _own(stack, directory)
        ballast = Ballast(places.root / "ballast")
        ballast.release()  # what comes next has room
        workers = Workers()
        stack.push_async_callback(workers.close)
        tasks = await stack.enter_async_context(Background())
        rows = ImageRows(image_root / "images.db", make_room=ballast.release)
        stack.callback(rows.close)
        state = State(places.root / "state.db", make_room=ballast.release)
        stack.callback(state.close)
        layers = Layers(image_root)
        await layers.open()
        roots = _roots(settings, layers, workers, places.root)
        await roots.open()
        stack.push_async_callback(roots.close)
        registry = open_registry(settings, environ)
        stack.push_async_callback(registry.close)
        images = _images(settings, environ, Images(rows, layers, roots=roots, workers=workers, registry=registry))
        await _read_stores(settings, environ, images, tasks=tasks)
        containers = await _containers(settings, state, images, places, tasks=tasks)
        stack.callback(containers.handlers.close)
        stack.push_async_callback(containers.close)
        stack.callback(_drop_parent, containers)
        pods = await _pods(settings, containers)
        stack.push_async_callback(pods.close)
        stack.push_async_callback(images.pulls.close, limit_s=0)
        tasks.start(ballast.keep(), name="keep room for the databases")
        if settings.image.auto_reload_registries:
            tasks.start(_follow_registries(images, settings, environ), name="follow registries.conf")
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
        places = _places(settings)
        image_root = _image_root(settings, places)
        for directory in dict.fromkeys((places.root.resolve(), image_root.resolve(), places.runroot.resolve())):
            _own(stack, directory)
        make_directory(places.root / "rootfs", 0o700, keep=PASS)
        workers = Workers()
        stack.push_async_callback(workers.close)
        rows = ImageRows(image_root / "images.db")
        stack.callback(rows.close)
        state = State(places.root / "state.db")
        stack.callback(state.close)
        layers = Layers(image_root)
        await layers.open()
        registry = open_registry(settings, environ)
        stack.push_async_callback(registry.close)
        roots = _roots(settings, layers, workers, places.root)
        images = _images(settings, environ, Images(rows, layers, roots=roots, workers=workers, registry=registry))
        images.in_use = functools.partial(_users, state)
        yield Stores(images, state)


@contextlib.contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Own root and run state for a block, without opening anything. Raises Unavailable."""
    with contextlib.ExitStack() as stack:
        places = _places(settings)
        for directory in dict.fromkeys((places.root, _image_root(settings, places), places.runroot)):
            _own(stack, directory.resolve())
        yield


def _users(state: State, image_id: str) -> list[str]:
    """The containers that need an image."""
    return [each.id for each in state.containers if image_id == each.image_id or image_id in each.volume_images]


def _roots(settings: Settings, layers: Layers, workers: Workers, root: Path) -> RootStore:
    options = parse_options(settings.storage_driver, settings.storage_option)
    for option in options.without_effect:
        log.warning("storage option has no effect here", option=option, remedy="take it out of storage_option")
    driver = DRIVERS[settings.storage_driver](layers, workers, root, options)
    return RootStore(root, layers, driver, limit=options.limit)


def _drop_parent(containers: Containers) -> None:
    """The cgroup above pods whose client gave none: made with the first of them, and nobody else takes it away."""
    if containers.cgroup_driver is Driver.CGROUPFS:
        Hierarchies.detect().drop_if_empty(DEFAULT_PARENT[Driver.CGROUPFS])


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


async def _read_stores(settings: Settings, environ: Mapping[str, str], images: Images, *, tasks: Background) -> None:
    """Let the images of other tools' stores be seen."""
    stores = find_stores(find_storage_conf(environ), settings.storage_option)
    if stores and settings.storage_driver != "overlay":
        log.warning("additional image stores are left out: only the overlay driver reads them", stores=len(stores))
    elif stores:
        images.foreign = ForeignImages(stores, images.layers)
        tasks.start(images.foreign.follow(), name="look at image stores")
        await images.foreign.refresh()


def _own(stack: contextlib.ExitStack | contextlib.AsyncExitStack, root: Path) -> None:
    """Hold the root's lock until the stack is closed; the kernel lets go of it when we die."""
    with explain(f"lock {root}"):
        fd = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        raise Unavailable(f"cannot open {root}: process {owner or '(unknown)'} owns it; stop that one first") from None
    with contextlib.suppress(OSError):  # on a full disk the message above is worse, and no more
        os.pwrite(fd, f"{os.getpid():<32}".encode(), 0)


def open_registry(settings: Settings, environ: Mapping[str, str]) -> Registry:
    """The registry client as the configuration and the files of this host have it.

    Raises:
        Invalid: a file of registries is malformed; the message names it.
    """
    auth = settings.image.global_auth_file
    return Registry(
        _hosts(settings, environ),
        user_agent=f"criollo/{__version__}",
        auth_paths=[Path(auth)] if auth else find_auth_files(environ, os.getuid()),
        environ=environ,
    )


def _hosts(settings: Settings, environ: Mapping[str, str]) -> Hosts:
    mode = settings.image.short_name_mode
    return Hosts.load(
        *find_registries_conf(environ),
        aliases_file=find_aliases_file(environ, os.getuid()),
        directories=find_directories(environ),
        mode=Mode(mode) if mode else None,
    )


async def _follow_registries(images: Images, settings: Settings, environ: Mapping[str, str]) -> None:
    """Read the files of registries again after each change; ones that are wrong change nothing."""
    conf, conf_d = find_registries_conf(environ)
    directories = [path for path in (conf.parent if conf is not None else None, conf_d) if path is not None]
    async with contextlib.aclosing(changes(directories)) as bursts:
        async for _ in bursts:
            try:
                hosts = await threads.files(_hosts, settings, environ)
            except CriolloError as error:
                log.warning("registries.conf cannot be used, the old rules stay", error=error)
                continue
            images.registry.use(hosts)
            images.hosts = hosts
            log.info("registries.conf read again")


def open_policies(settings: Settings, environ: Mapping[str, str]) -> Policies:
    """The trust policies as the configuration has them."""
    path, directory = settings.image.signature_policy, settings.image.signature_policy_dir
    return Policies(Path(path) if path else None, directory=Path(directory) if directory else None, environ=environ)


def _open_judge(settings: Settings, environ: Mapping[str, str]) -> Judge:
    """Who judges images; a policy of the node that cannot be used does not let us start.

    Raises:
        Invalid: the policy is malformed.
    """
    path = settings.image.signature_policy
    found = Path(path) if path else find_policy(environ)
    if found is None:
        log.warning("no signature policy: images of every registry are accepted", remedy="write /etc/containers/policy.json")
    else:
        Policy.load(found)
    scratch = Path(settings.runroot) / "trust"
    remove_leftovers(scratch)
    return Judge(open_policies(settings, environ), scratch=scratch)


def _images(settings: Settings, environ: Mapping[str, str], images: Images) -> Images:
    images.judge = _open_judge(settings, environ)
    images.signatures_conf = find_directory(environ)
    namespaced = settings.image.namespaced_auth_dir
    images.namespaced_auth_dir = Path(namespaced) if namespaced else None
    images.pinned = (*settings.image.pinned_images, *([settings.image.pause_image] if settings.image.pause_image else []))
    images.decryption_keys = Path(settings.runtime.decryption_keys_path)
    images.mounts_artifacts = settings.image.oci_artifact_mount_support
    images.progress_timeout_s = settings.image.pull_progress_timeout.seconds
    return images


async def _containers(settings: Settings, state: State, images: Images, places: Places, *, tasks: Background) -> Containers:
    runtime, hierarchies = settings.runtime, Hierarchies.detect()
    handlers = await open_handlers(_runtimes(settings, hierarchies), runtime.default_runtime)
    containers = Containers(
        state,
        images,
        roots=images.roots,
        handlers=handlers,
        workers=images.workers,
        places=places,
        collector=Collector(hierarchies),
        tasks=tasks,
    )
    containers.host = await threads.files(gather)
    host = containers.host
    defaults = {name: _defaults(settings, runtime.runtimes[name], handlers.probes[name], host) for name in handlers.names()}
    containers.defaults_of = lambda handler: defaults[handler or handlers.default]
    containers.seccomp = await threads.files(_seccomp, settings, host)
    containers.cgroup_driver = Driver(runtime.cgroup_manager)
    containers.exits_dir = Path(runtime.container_exits_dir)
    containers.additional_devices = tuple(_device(text) for text in runtime.additional_devices if text)
    containers.absent_sources_to_reject = runtime.absent_mount_sources_to_reject
    containers.bind_mount_prefix = runtime.bind_mount_prefix
    containers.image_volume_mode = settings.image.image_volumes
    images.in_use = functools.partial(_users, state)
    return containers


def _runtimes(settings: Settings, hierarchies: Hierarchies) -> dict[str, Runtime]:
    runtime = settings.runtime
    candidates: dict[str, Runtime] = {}
    for name, handler in runtime.runtimes.items():
        if handler.runtime_type != "oci":
            log.warning("runtime handler left out: its type is not supported yet", handler=name, type=handler.runtime_type)
            continue
        conmon = Conmon(
            Path(handler.monitor_path),
            exits_dir=Path(runtime.container_exits_dir),
            attach_dir=Path(runtime.container_attach_socket_dir),
            log_size_max=runtime.log_size_max,
            no_sync_log=handler.no_sync_log,
        )
        candidates[name] = OciRuntime(_handler(name, handler, runtime.cgroup_manager), conmon, hierarchies)
    if runtime.default_runtime not in candidates:
        raise Unsupported(f"cannot start: default_runtime {runtime.default_runtime} is of a type that is not supported yet")
    return candidates


def _handler(name: str, handler: RuntimeHandler, cgroup_manager: str) -> Handler:
    return Handler(
        name=name,
        path=Path(handler.runtime_path),
        root=Path(handler.runtime_root or f"/run/{name}"),
        driver=Driver(cgroup_manager),
        monitor_cgroup=handler.monitor_cgroup,
        monitor_env=dict(word.split("=", 1) for word in handler.monitor_env if "=" in word),
        create_limit_s=float(handler.container_create_timeout),
    )


def _defaults(settings: Settings, handler: RuntimeHandler, probe: Probe, host: HostFacts) -> Defaults:
    runtime = settings.runtime
    able = mounting(probe.version, probe.features)
    return Defaults(
        capabilities=runtime.default_capabilities,
        add_inheritable_capabilities=runtime.add_inheritable_capabilities,
        ulimits=tuple(parse_ulimit(text) for text in runtime.default_ulimits if text),
        env=runtime.default_env,
        pids_limit=max(0, runtime.pids_limit),
        read_only=runtime.read_only,
        storage_root=settings.root,
        min_memory_bytes=handler.container_min_memory.bytes,
        privileged_without_host_devices=handler.privileged_without_host_devices,
        annotations=dict(handler.default_annotations),
        allowed_annotations=handler.allowed_annotations,
        systemd_cgroups=runtime.cgroup_manager == "systemd",
        supports_rro=able.recursive_read_only and host.kernel >= MOUNT_SETATTR_SINCE,
        supports_idmap=able.id_mapped and host.kernel >= MOUNT_SETATTR_SINCE,
        precompiles_seccomp=precompiles_seccomp(probe.version),
        repeats_mappings=repeats_mappings(probe.version),
    )


def _seccomp(settings: Settings, host: HostFacts) -> Profiles:
    runtime = settings.runtime
    found = Profiles.of_node(host.kernel, default=runtime.seccomp_profile, privileged=runtime.privileged_seccomp_profile)
    found.set_handlers({name: handler.seccomp_profile for name, handler in runtime.runtimes.items()})
    return found


def _device(text: str) -> Device:
    """`/dev/host[:/dev/inside][:rwm]`, checked when the configuration was loaded."""
    host, *rest = text.split(":")
    permissions = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    return Device(host_path=host, container_path=rest[0] if rest else host, permissions=permissions)


async def _pods(settings: Settings, containers: Containers) -> Pods:
    network, image = settings.network, settings.image
    plugin_dirs = dict.fromkeys(Path(text) for text in (*network.plugin_dirs, network.plugin_dir) if text)
    cni = Cni(Path(network.network_dir), tuple(plugin_dirs), containers.places.root / "cni", network.cni_default_network)
    await cni.load()
    await namespaces.prepare(containers.places.namespaces)
    pods = Pods(containers, network=cni, hierarchies=Hierarchies.detect())
    pods.default_sysctls = dict(text.split("=", 1) for text in settings.runtime.default_sysctls if "=" in text)
    pods.drop_infra = settings.runtime.drop_infra_ctr
    pods.pause_image = image.pause_image
    pods.pause_command = tuple(image.pause_command.split())
    catatonit = shutil.which("catatonit")
    pods.catatonit = Path(catatonit) if catatonit else None
    pods.log_dir = settings.log_dir
    pods.events = Events(pods.state, containers.clock) if settings.runtime.enable_pod_events else None
    containers.tasks.start(cni.watch(), name="watch networks")
    return pods
