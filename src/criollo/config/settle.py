"""From what was written to what holds: old names, lowest values, and a line for all that has no effect.

Pure: settings in, settings and warnings out. Settling twice changes nothing more.
"""

from collections.abc import Iterator, Mapping

import msgspec

from criollo.config.handlers import (
    DEFAULT_CREATE_TIMEOUT_S,
    DEFAULT_HANDLER,
    MINIMUM_CREATE_TIMEOUT_S,
    RuntimeHandler,
    built_in,
)
from criollo.config.keys import Works
from criollo.config.places import dotted, origin_of, values_of
from criollo.config.runtime import MINIMUM_STOP_TIMEOUT_S, Runtime
from criollo.config.settings import MESSAGE_SIZE_BYTES, Settings

Origins = Mapping[str, str]


def settle(settings: Settings, base: Settings, origins: Origins) -> tuple[Settings, tuple[str, ...]]:
    """The settings with old names and lowest values applied, and one line for each thing that is not as written.

    `base` is what holds where nothing is written.
    """
    warnings = list(_without_effect(settings, base, origins))
    runtime = _runtime(settings.runtime, warnings, origins)
    if settings.api.tls_cipher_suites and settings.api.tls_min_version == "VersionTLS13":
        where = origin_of(origins, ("api", "tls_cipher_suites"))
        warnings.append(f"{where}: no effect with tls_min_version VersionTLS13, whose suites are always on")
    api = msgspec.structs.replace(
        settings.api,
        grpc_max_send_msg_size=_positive(settings.api.grpc_max_send_msg_size),
        grpc_max_recv_msg_size=_positive(settings.api.grpc_max_recv_msg_size),
    )
    network = settings.network
    if network.plugin_dir:
        plugin_dirs = tuple(dict.fromkeys((*network.plugin_dirs, network.plugin_dir)))
        network = msgspec.structs.replace(network, plugin_dirs=plugin_dirs, plugin_dir="")
    return msgspec.structs.replace(settings, runtime=runtime, api=api, network=network), tuple(warnings)


def _positive(size_bytes: int) -> int:
    return size_bytes if size_bytes > 0 else MESSAGE_SIZE_BYTES


def _without_effect(settings: Settings, base: Settings, origins: Origins) -> Iterator[str]:
    usual = {place: value for place, _, value in values_of(base)}
    for place, setting, value in values_of(settings):
        key = setting.key
        if value == usual.get(place, setting.default):
            continue
        instead = f"use {key.deprecated}" if key.deprecated else ""
        if key.works in (Works.LATER, Works.DEAD):
            yield f"{origin_of(origins, place)}: {key.works}{'; ' if instead else ''}{instead}"
        elif instead:
            yield f"{origin_of(origins, place)}: deprecated; {instead}"


def _runtime(runtime: Runtime, warnings: list[str], origins: Origins) -> Runtime:
    stop_timeout = runtime.ctr_stop_timeout
    if stop_timeout < MINIMUM_STOP_TIMEOUT_S:
        stop_timeout = MINIMUM_STOP_TIMEOUT_S
        warnings.append(f"{origin_of(origins, ('runtime', 'ctr_stop_timeout'))}: raised to the least value, {stop_timeout}")
    default = runtime.default_runtime or DEFAULT_HANDLER
    runtimes = dict(runtime.runtimes) if default in runtime.runtimes else {**runtime.runtimes, **built_in()}
    for name, handler in runtimes.items():
        runtimes[name] = _handler(name, handler, runtime, warnings)
    return msgspec.structs.replace(
        runtime,
        ctr_stop_timeout=stop_timeout,
        default_runtime=default,
        runtimes=runtimes,
        conmon="",
        conmon_cgroup="",
        conmon_env=(),
    )


def _handler(name: str, handler: RuntimeHandler, runtime: Runtime, warnings: list[str]) -> RuntimeHandler:
    where = dotted(("runtime", "runtimes", name))
    timeout = handler.container_create_timeout or DEFAULT_CREATE_TIMEOUT_S
    if timeout < MINIMUM_CREATE_TIMEOUT_S:
        timeout = MINIMUM_CREATE_TIMEOUT_S
        warnings.append(f"{where}.container_create_timeout: raised to the least value, {timeout}")
    if handler.runtime_type != "oci":
        warnings.append(f"{where}.runtime_type: {handler.runtime_type!r} is not driven yet; pods of this handler are refused")
    return msgspec.structs.replace(
        handler,
        container_create_timeout=timeout,
        monitor_path=runtime.conmon or handler.monitor_path,
        monitor_cgroup=_monitor_cgroup(runtime.conmon_cgroup or handler.monitor_cgroup, runtime.cgroup_manager),
        monitor_env=runtime.conmon_env or handler.monitor_env,
    )


def _monitor_cgroup(group: str, cgroup_manager: str) -> str:
    return "" if cgroup_manager == "cgroupfs" and group == "system.slice" else group
