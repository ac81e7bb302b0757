"""A configuration against the host it runs on: programs are found, devices and managers are there.

A handler that is not usable is dropped with a warning; the default handler must be usable. What is found is filled in,
so that nothing below looks at PATH again.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from typing import Final

import msgspec

from criollo.config.handlers import RuntimeHandler
from criollo.config.load import Loaded
from criollo.config.places import origin_of
from criollo.config.values import parse_device
from criollo.errors import Invalid

USUAL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where distributions put conmon when it is not meant for people's PATH.
_CONMON_ELSEWHERE: Final = ("/usr/libexec/podman/conmon", "/usr/libexec/crio/conmon", "/usr/local/libexec/podman/conmon")
_INHERITED: Final = ("runtime_path", "runtime_type", "runtime_config_path", "runtime_root")


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What `settle_on_host` asks of a host."""

    search_path: str = USUAL_PATH
    systemd: bool = False

    @classmethod
    def here(cls, environ: Mapping[str, str]) -> "Host":
        """This host, with the PATH of `environ`."""
        return cls(search_path=environ.get("PATH") or USUAL_PATH, systemd=os.path.isdir("/run/systemd/system"))

    def program(self, path_or_name: str) -> str:
        """The absolute path of a program, or "" when there is none that can be run."""
        return os.path.abspath(found) if (found := shutil.which(path_or_name, path=self.search_path)) else ""


def settle_on_host(loaded: Loaded, host: Host) -> Loaded:
    """The configuration with absolute programs in every handler, without the handlers this host cannot run.

    Raises:
        Invalid: the default handler or its monitor is not there, a device is none, systemd is asked for and not running.
    """
    runtime, origins = loaded.settings.runtime, loaded.origins
    if runtime.cgroup_manager == "systemd" and not host.systemd:
        raise Invalid(origin_of(origins, ("runtime", "cgroup_manager")), "systemd", "'cgroupfs': systemd does not run here")
    for text in runtime.additional_devices:
        if text:
            _check_device(text, origin_of(origins, ("runtime", "additional_devices")))
    default = _filled(runtime.default_runtime, runtime.runtimes[runtime.default_runtime], origins, host)
    runtimes, warnings = {runtime.default_runtime: default}, list(loaded.warnings)
    for name, handler in runtime.runtimes.items():
        if name == runtime.default_runtime:
            continue
        try:
            runtimes[name] = _filled(name, _inheriting(handler, default), origins, host)
        except Invalid as error:
            if f"crio.runtime.runtimes.{name}" in origins:  # the built-in one is no loss
                warnings.append(f"runtime handler {name} is left out: {error}")
    if runtime.cgroup_manager == "systemd":
        runtimes = {name: _in_slice(handler) for name, handler in runtimes.items()}
    changed = msgspec.structs.replace(runtime, runtimes=runtimes)
    settings = msgspec.structs.replace(loaded.settings, runtime=changed)
    return msgspec.structs.replace(loaded, settings=settings, warnings=tuple(warnings))


def _inheriting(handler: RuntimeHandler, default: RuntimeHandler) -> RuntimeHandler:
    if not handler.inherit_default_runtime:
        return handler
    return msgspec.structs.replace(handler, **{name: getattr(default, name) for name in _INHERITED})


def _in_slice(handler: RuntimeHandler) -> RuntimeHandler:
    return msgspec.structs.replace(handler, monitor_cgroup=handler.monitor_cgroup or "system.slice")


def _filled(name: str, handler: RuntimeHandler, origins: Mapping[str, str], host: Host) -> RuntimeHandler:
    place = ("runtime", "runtimes", name)
    program = host.program(handler.runtime_path or name)
    if not program:
        where = "a program that can be run" if handler.runtime_path else f"{name} in PATH, or the path of another program"
        raise Invalid(origin_of(origins, (*place, "runtime_path")), handler.runtime_path, f"{where}; install it")
    monitor = host.program(handler.monitor_path or "conmon")
    if not monitor and not handler.monitor_path:
        monitor = next((path for path in _CONMON_ELSEWHERE if os.access(path, os.X_OK)), "")
    if not monitor:
        raise Invalid(origin_of(origins, (*place, "monitor_path")), handler.monitor_path, "the program conmon; install it")
    return msgspec.structs.replace(
        handler,
        runtime_path=program,
        runtime_root=handler.runtime_root or f"/run/{name}",
        monitor_path=monitor,
    )


def _check_device(text: str, field: str) -> None:
    source = parse_device(text, field).source
    try:
        mode = os.stat(source).st_mode
    except OSError as error:
        raise Invalid(field, text, f"a device of this host; {source} is not a valid device: {error.strerror}") from error
    if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise Invalid(field, text, f"a device of this host; {source} is not a valid device")
