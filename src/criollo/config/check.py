"""What a configuration may say: rules over the values alone, without a look at the host.

The first broken rule raises `Invalid` with the place the value came from, because a wrong value silently replaced by
another would be a configuration that nobody wrote.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from criollo.config.ciphers import openssl_names
from criollo.config.handlers import LEAST_CPU_TIME_US, LONGEST_CPU_PERIOD_US, RuntimeHandler, Workload
from criollo.config.keys import Setting
from criollo.config.places import Place, origin_of, values_of
from criollo.config.profile import check_profile
from criollo.config.runtime import MINIMUM_LOG_SIZE_BYTES, Runtime
from criollo.config.settings import Api, Settings
from criollo.config.stats import Stats, check_metrics, check_period
from criollo.config.telemetry import check_telemetry
from criollo.config.values import Duration, parse_capability, parse_cpus, parse_device, parse_sysctl, parse_ulimit
from criollo.errors import Invalid

Origins = Mapping[str, str]

_PORT: Final = re.compile(r"[0-9]{1,5}")
_LAST_PORT: Final = 65535
_LARGEST_CPU_VALUE: Final = 1 << 40
_SOCKET_PATH_LIMIT: Final = 107  # sun_path without its final NUL, unix(7)
_ABSOLUTE_LISTS: Final = (
    ("network", "plugin_dirs"),
    ("runtime", "allowed_devices"),
    ("runtime", "absent_mount_sources_to_reject"),
    ("runtime", "additional_artifact_stores"),
    ("runtime", "cdi_spec_dirs"),
    ("runtime", "hooks_dir"),
)


def check(settings: Settings, origins: Origins) -> None:
    """Refuse what cannot be meant.

    Raises:
        Invalid: with the key, its origin, its value and what is expected.
    """
    for place, setting, value in values_of(settings):
        if isinstance(value, str):
            _check_text(place, setting, value, origins)
        elif place in _ABSOLUTE_LISTS and isinstance(value, tuple):
            for path in value:
                _check_absolute(path, origin_of(origins, place))
    if len(settings.api.listen.encode()) > _SOCKET_PATH_LIMIT:
        raise Invalid(
            origin_of(origins, ("api", "listen")), settings.api.listen, f"a path of at most {_SOCKET_PATH_LIMIT} bytes"
        )
    if settings.image.default_transport != "docker://":
        raise Invalid(origin_of(origins, ("image", "default_transport")), settings.image.default_transport, "'docker://'")
    _check_streams(settings.api, origins)
    check_telemetry(settings.metrics, settings.tracing, lambda table, key: origin_of(origins, (table, key)))
    _check_runtime(settings.runtime, origins)
    _check_stats(settings.stats, origins)
    check_profile(origin_of(origins, ("profile", "profile_port")), settings.profile)
    systemd = settings.runtime.cgroup_manager == "systemd"
    _check_monitor_cgroup(settings.runtime.conmon_cgroup, origin_of(origins, ("runtime", "conmon_cgroup")), systemd=systemd)
    for name, handler in settings.runtime.runtimes.items():
        _check_handler(name, handler, origins, systemd=systemd)
    for name, workload in settings.runtime.workloads.items():
        _check_workload(name, workload, origins)


def _check_streams(api: Api, origins: Origins) -> None:
    def field(name: str) -> str:
        return origin_of(origins, ("api", name))

    try:
        ipaddress.ip_address(api.stream_address or "::")
    except ValueError:
        raise Invalid(field("stream_address"), api.stream_address, "an IP address, or '' for all of them") from None
    if not _PORT.fullmatch(api.stream_port) or int(api.stream_port) > _LAST_PORT:
        raise Invalid(field("stream_port"), api.stream_port, f"a number from 0 to {_LAST_PORT}, as text")
    Duration.parse(api.stream_idle_timeout, field("stream_idle_timeout"))
    openssl_names(api.tls_cipher_suites, field("tls_cipher_suites"))
    for name in ("stream_tls_cert", "stream_tls_key"):
        if api.stream_enable_tls and not getattr(api, name):
            raise Invalid(field(name), "", "a file, where stream_enable_tls is true")


def _check_text(place: Place, setting: Setting, value: str, origins: Origins) -> None:
    key = setting.key
    if key.choices and value not in key.choices:
        raise Invalid(origin_of(origins, place), value, " or ".join(repr(choice) for choice in key.choices))
    if key.absolute and (value or (setting.default and not key.none)):
        _check_absolute(value, origin_of(origins, place))


def _check_absolute(path: str, field: str) -> None:
    if not path.startswith("/") or not path.isprintable() or ".." in path.split("/"):
        raise Invalid(field, path, "an absolute path without '..' and control characters")


def _check_runtime(runtime: Runtime, origins: Origins) -> None:
    def field(name: str) -> str:
        return origin_of(origins, ("runtime", name))

    for text in runtime.default_sysctls:
        if text:
            parse_sysctl(text, field("default_sysctls"))
    for text in runtime.default_ulimits:
        parse_ulimit(text, field("default_ulimits"))
    for text in runtime.additional_devices:
        if text:
            parse_device(text, field("additional_devices"))
    for text in runtime.default_capabilities:
        parse_capability(text, field("default_capabilities"))
    for name in ("default_env", "conmon_env"):
        _check_environment(getattr(runtime, name), field(name))
    for name in ("infra_ctr_cpuset", "shared_cpuset"):
        if getattr(runtime, name):
            parse_cpus(getattr(runtime, name), field(name))
    try:
        re.compile(runtime.log_filter)
    except re.error as error:
        raise Invalid(field("log_filter"), runtime.log_filter, f"a regular expression ({error})") from error
    if 0 <= runtime.log_size_max < MINIMUM_LOG_SIZE_BYTES:
        raise Invalid(field("log_size_max"), runtime.log_size_max, f"a negative number, or at least {MINIMUM_LOG_SIZE_BYTES}")
    if runtime.min_injected_gomaxprocs < 0:
        raise Invalid(field("min_injected_gomaxprocs"), runtime.min_injected_gomaxprocs, "0 or more")
    if runtime.default_runtime and runtime.default_runtime not in runtime.runtimes:
        known = ", ".join(sorted(runtime.runtimes))
        raise Invalid(
            field("default_runtime"),
            runtime.default_runtime,
            f"a handler of [crio.runtime.runtimes.<name>]; there are: {known}",
        )


def _check_stats(stats: Stats, origins: Origins) -> None:
    for name in ("collection_period", "stats_collection_period"):
        check_period(origin_of(origins, ("stats", name)), getattr(stats, name))
    check_metrics(origin_of(origins, ("stats", "included_pod_metrics")), stats.included_pod_metrics)


def _check_handler(name: str, handler: RuntimeHandler, origins: Origins, *, systemd: bool) -> None:
    place = ("runtime", "runtimes", name)
    _check_environment(handler.monitor_env, origin_of(origins, (*place, "monitor_env")))
    _check_monitor_cgroup(handler.monitor_cgroup, origin_of(origins, (*place, "monitor_cgroup")), systemd=systemd)
    for platform, path in handler.platform_runtime_paths.items():
        _check_absolute(path, f"{origin_of(origins, (*place, 'platform_runtime_paths'))}: {platform}")


def _check_workload(name: str, workload: Workload, origins: Origins) -> None:
    def field(*inner: str) -> str:
        return origin_of(origins, ("runtime", "workloads", name, *inner))

    if not workload.activation_annotation:
        raise Invalid(field("activation_annotation"), "", "the annotation that switches the workload on")
    resources = workload.resources
    for key in ("cpushares", "cpuquota", "cpuperiod", "cpulimit"):
        if not 0 <= getattr(resources, key) <= _LARGEST_CPU_VALUE:
            raise Invalid(field("resources", key), getattr(resources, key), f"a number from 0 to {_LARGEST_CPU_VALUE}")
    if resources.cpuset:
        parse_cpus(resources.cpuset, field("resources", "cpuset"))
    if 0 < resources.cpuquota < max(resources.cpushares, LEAST_CPU_TIME_US):
        expected = f"0, or at least {LEAST_CPU_TIME_US} and not less than cpushares ({resources.cpushares})"
        raise Invalid(field("resources", "cpuquota"), resources.cpuquota, expected)
    if 0 < resources.cpuperiod < LEAST_CPU_TIME_US or resources.cpuperiod > LONGEST_CPU_PERIOD_US:
        expected = f"0, or a number from {LEAST_CPU_TIME_US} to {LONGEST_CPU_PERIOD_US}"
        raise Invalid(field("resources", "cpuperiod"), resources.cpuperiod, expected)


def _check_monitor_cgroup(group: str, field: str, *, systemd: bool) -> None:
    if systemd and group not in ("", "pod") and (not group.endswith(".slice") or "/" in group):
        raise Invalid(field, group, "'pod' or the name of a systemd slice")
    if not systemd and group not in ("", "pod", "system.slice"):
        raise Invalid(field, group, "'pod' or '' with cgroup_manager cgroupfs")


def _check_environment(entries: tuple[str, ...], field: str) -> None:
    for entry in entries:
        if not entry.partition("=")[0] or "=" not in entry:
            raise Invalid(field, entry, "NAME=value")
