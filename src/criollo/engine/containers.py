"""Containers: runtime handlers, what the node gives a container, confinement."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from criollo.aio import threads
from criollo.aio.background import Background
from criollo.aio.systemd import Systemd
from criollo.config.handlers import RuntimeHandler
from criollo.config.runtime import Runtime as RuntimeSettings
from criollo.config.settings import Settings
from criollo.containers.additions import Additions
from criollo.containers.confine import open_confinement
from criollo.containers.context import Containers, Places
from criollo.containers.rules import open_rules
from criollo.errors import CriolloError, Unsupported
from criollo.images.context import Images
from criollo.linux.cgroup import Driver, Hierarchies
from criollo.monitor.conmon import Conmon
from criollo.runtimes.base import Probe, Runtime
from criollo.runtimes.handlers import open_handlers
from criollo.runtimes.oci import Handler, OciRuntime
from criollo.security.seccomp import Profiles
from criollo.specgen.devices import parse_devices
from criollo.specgen.host import HostFacts, gather
from criollo.specgen.request import Defaults
from criollo.specgen.rlimits import parse_ulimit
from criollo.state.records import State
from criollo.stats.collect import Collector
from criollo.telemetry.log import get_logger
from criollo.wire.runtime import (
    has_known_words,
    mounting,
    moves_interfaces,
    precompiles_seccomp,
    repeats_mappings,
    unsafe_annotations,
)

log = get_logger(__name__)

MOUNT_SETATTR_SINCE: Final = (5, 12)  # mount_setattr(2): recursive read-only and id-mapped mounts


async def open_containers(settings: Settings, state: State, images: Images, places: Places, *, tasks: Background) -> Containers:
    runtime, hierarchies = settings.runtime, Hierarchies.detect()
    units = Systemd()
    handlers = await open_handlers(_runtimes(settings, hierarchies, units), runtime.default_runtime)
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
    containers.hierarchies, containers.units = hierarchies, units
    containers.host = await threads.files(gather)
    host = containers.host
    defaults = {name: _defaults(settings, runtime.runtimes[name], handlers.probes[name], host) for name in handlers.names()}
    containers.defaults_of = lambda handler: defaults[handler or handlers.default]
    containers.rules = await threads.files(open_rules, runtime)
    containers.additions = Additions(
        runtime.cdi_spec_dirs, runtime.hooks_dir, timezone=runtime.timezone, mounts_file=runtime.default_mounts_file
    )
    containers.seccomp = await threads.files(open_seccomp, settings, host)
    await open_confinement(
        containers,
        apparmor_profile=runtime.apparmor_profile,
        selinux=runtime.selinux,
        host_network_unconfined=runtime.hostnetwork_disable_selinux,
        storage_driver=settings.storage_driver,
    )
    containers.irqbalance_config = runtime.irqbalance_config_file
    await restore_irqbalance(runtime)
    containers.cgroup_driver = Driver(runtime.cgroup_manager)
    containers.exits_dir = Path(runtime.container_exits_dir)
    containers.additional_devices = parse_devices(runtime.additional_devices, "additional_devices")
    containers.allowed_devices = runtime.allowed_devices
    containers.owns_devices = runtime.device_ownership_from_security_context
    containers.absent_sources_to_reject = runtime.absent_mount_sources_to_reject
    containers.bind_mount_prefix = runtime.bind_mount_prefix
    containers.image_volume_mode = settings.image.image_volumes
    return containers


async def restore_irqbalance(runtime: RuntimeSettings) -> None:
    """Put back which CPUs irqbalance bans, where pods of another boot have changed it. Trouble is told: containers can run."""
    if not await threads.files(Path(runtime.irqbalance_config_file).is_file):
        return
    from criollo.containers.irqbalance import restore  # few nodes have it

    try:
        await restore(runtime.irqbalance_config_file, runtime.irqbalance_config_restore_file)
    except CriolloError as error:
        log.warning("CPUs that irqbalance bans cannot be restored", file=runtime.irqbalance_config_file, error=error)


async def reopen_handlers(settings: Settings, containers: Containers) -> Callable[[], None]:
    """Ask the programs of other handlers whether they work; what is returned puts them in the place of those that are there.

    Raises:
        NotFound, Unavailable, Unsupported: the default handler is not there, does not work, is not driven.
    """
    candidates = _runtimes(settings, containers.hierarchies, containers.units)
    handlers = await open_handlers(candidates, settings.runtime.default_runtime)
    tables, host = settings.runtime.runtimes, containers.host
    defaults = {name: _defaults(settings, tables[name], handlers.probes[name], host) for name in handlers.names()}

    def apply() -> None:
        containers.handlers.become(handlers)
        containers.defaults_of = lambda handler: defaults[handler or containers.handlers.default]

    return apply


def _runtimes(settings: Settings, hierarchies: Hierarchies, units: Systemd) -> dict[str, Runtime]:
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
        conmon.units = units
        candidates[name] = OciRuntime(_handler(name, handler, runtime), conmon, hierarchies)
    if runtime.default_runtime not in candidates:
        raise Unsupported(f"cannot start: default_runtime {runtime.default_runtime} is of a type that is not supported yet")
    return candidates


def _handler(name: str, handler: RuntimeHandler, runtime: RuntimeSettings) -> Handler:
    return Handler(
        name=name,
        path=Path(handler.runtime_path),
        root=Path(handler.runtime_root or f"/run/{name}"),
        driver=Driver(runtime.cgroup_manager),
        monitor_cgroup=handler.monitor_cgroup,
        monitor_env=dict(word.split("=", 1) for word in handler.monitor_env if "=" in word),
        create_limit_s=float(handler.container_create_timeout),
        no_pivot=runtime.no_pivot,
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
        unsafe_annotations=unsafe_annotations(probe.features),
        listed_annotations_only=not has_known_words(probe.version, probe.features),
        systemd_cgroups=runtime.cgroup_manager == "systemd",
        supports_rro=able.recursive_read_only and host.kernel >= MOUNT_SETATTR_SINCE,
        supports_idmap=able.id_mapped and host.kernel >= MOUNT_SETATTR_SINCE,
        supports_net_devices=moves_interfaces(probe.features),
        runtime=probe.version.text,
        precompiles_seccomp=precompiles_seccomp(probe.version),
        repeats_mappings=repeats_mappings(probe.version),
    )


def open_seccomp(settings: Settings, host: HostFacts) -> Profiles:
    """The filters of the node (blocking).

    Raises:
        NotFound, Invalid, Unsupported, HostFailed: a file is not there, or no profile.
    """
    runtime = settings.runtime
    found = Profiles.of_node(host.kernel, default=runtime.seccomp_profile, privileged=runtime.privileged_seccomp_profile)
    found.set_handlers({name: handler.seccomp_profile for name, handler in runtime.runtimes.items()})
    return found
