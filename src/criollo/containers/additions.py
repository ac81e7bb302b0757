"""What a container gets beyond what its request says: by the settings of the node, by annotations, by CDI devices and hooks.

    timezone                            /etc/localtime
    umask.crio.io                       umask of the first process, octal
    cgroup2-mount-hierarchy-rw.crio.io  "true": its own cgroups are writable (cgroup v2)
    disable-fips.crio.io                "true", with the pod's label FIPS_DISABLE=true: the node's FIPS mode is not seen
    CDI_devices, cdi.k8s.io/*           devices of CDI specs, asked for by the container itself alone
    hooks_dir                           hooks of the administrator

The annotations of our own need the leave of the handler or the workload. CDI, hooks and default mounts are loaded when they
are first needed.
"""

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from criollo.containers.rootfs import Ground
from criollo.containers.shape import Asked
from criollo.errors import Invalid, explain
from criollo.linux import files
from criollo.oci import runtime_spec
from criollo.specgen.annotations import given as given_annotations
from criollo.specgen.process import arguments
from criollo.specgen.request import SpecRequest

if TYPE_CHECKING:
    from criollo.cdi.registry import Registry
    from criollo.hooks.directory import HookDirectories

UMASK: Final = "umask.crio.io"
WRITABLE_CGROUPS: Final = "cgroup2-mount-hierarchy-rw.crio.io"
DISABLE_FIPS: Final = "disable-fips.crio.io"
FIPS_LABEL: Final = "FIPS_DISABLE"
FIPS: Final = "/proc/sys/crypto/fips_enabled"
ZONES: Final = "/usr/share/zoneinfo"

_CDI: Final = "cdi.k8s.io/"
_OCTAL: Final = re.compile(r"[0-7]{1,4}", re.ASCII)
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*", re.ASCII)
_READ_ONLY: Final = ("bind", "rprivate", "ro", "nosuid", "noexec", "nodev")


class Additions:
    """What this node adds. Blocking; safe to share between threads."""

    def __init__(
        self,
        cdi_dirs: tuple[str, ...] = (),
        hooks_dirs: tuple[str, ...] = (),
        *,
        timezone: str = "",
        mounts_file: str | None = None,
    ) -> None:
        """`mounts_file`: the one that is configured, "" for those of the system, None for none.

        Raises:
            Invalid: there is no such time zone.
        """
        self._cdi_dirs, self._hooks_dirs, self.mounts_file = cdi_dirs, hooks_dirs, mounts_file
        self._localtime = zone_file(timezone)
        self._cdi: Registry | None = None
        self._hooks: HookDirectories | None = None
        self._lock = threading.Lock()  # each is opened once

    def to(self, request: SpecRequest, asked: Asked, ground: Ground) -> SpecRequest:
        """The request for a spec with all that is added.

        Raises:
            Invalid, NotFound: an annotation, a CDI device or a hook that cannot be; the message names it.
        """
        changes: dict[str, Any] = {}
        if mounts := self._mounts(request, asked, ground):
            changes["default_mounts"] = (*request.default_mounts, *mounts)
        if umask := asked.wish(UMASK):
            changes["umask"] = parse_umask(umask)
        if asked.wish(WRITABLE_CGROUPS) == "true":
            changes["writable_cgroups"] = True
        if request.config.cdi_devices or any(key.startswith(_CDI) for key in request.config.annotations):
            changes["edits"] = self._cdi_registry().edits(request.config.cdi_devices, request.config.annotations)
        if self._hooks_dirs and (hooks := self._hooks_of(request)) is not None:
            changes["hooks"] = hooks
        return msgspec.structs.replace(request, **changes) if changes else request

    def use_cdi_dirs(self, directories: tuple[str, ...]) -> None:
        """Look for CDI specs elsewhere from now on."""
        with self._lock:
            old, self._cdi, self._cdi_dirs = self._cdi, None, directories
        if old is not None:
            old.close()

    def close(self) -> None:
        for opened in (self._cdi, self._hooks):
            if opened is not None:
                opened.close()

    def _mounts(self, request: SpecRequest, asked: Asked, ground: Ground) -> tuple[runtime_spec.Mount, ...]:
        found = []
        if self._localtime:
            found.append(_bound(self._localtime, "/etc/localtime"))
        if request.pod.config.labels.get(FIPS_LABEL) == "true" and asked.wish(DISABLE_FIPS) == "true" and os.path.exists(FIPS):
            source = ground.bundle / "fips_enabled"
            with explain(f"write {source}"):
                source.write_bytes(b"0\n")
                source.chmod(0o444)
                files.own(source, ground.owner)
                if label := request.confinement.mount_label:
                    from criollo.linux.selinux import XATTR  # nodes with SELinux only

                    os.setxattr(source, XATTR, label.encode() + b"\0")
            found.append(_bound(str(source), FIPS))
        return tuple(found)

    def _hooks_of(self, request: SpecRequest) -> runtime_spec.Hooks | None:
        with self._lock:
            if self._hooks is None:
                from criollo.hooks.directory import HookDirectories  # with the first container

                self._hooks = HookDirectories(self._hooks_dirs)
            hooks = self._hooks
        if hooks.is_empty():
            return None
        command = arguments(request.config, request.image)[0]
        return hooks.of(given_annotations(request), command, has_bind_mounts=bool(request.config.mounts))

    def _cdi_registry(self) -> "Registry":
        with self._lock:
            if self._cdi is None:
                from criollo.cdi.registry import Registry  # few containers ask

                self._cdi = Registry(self._cdi_dirs)
            return self._cdi


def zone_file(timezone: str) -> str:
    """The file of a time zone; "Local" for the node's, empty for none.

    Raises:
        Invalid: there is no such zone.
    """
    if not timezone:
        return ""
    if timezone.lower() == "local":
        return "/etc/localtime" if os.path.exists("/etc/localtime") else ""
    path = Path(ZONES, timezone)
    if not _ZONE.fullmatch(timezone) or not path.is_file():
        raise Invalid("timezone", timezone, f"invalid timezone: a name below {ZONES}, or 'Local'")
    return str(path)


def parse_umask(text: str) -> int:
    """A umask as people write it: `0022`. Raises Invalid."""
    if not _OCTAL.fullmatch(text) or int(text, 8) > 0o777:
        raise Invalid(f"annotation {UMASK}", text, "an octal number from 0 to 0777")
    return int(text, 8)


def _bound(source: str, destination: str) -> runtime_spec.Mount:
    return runtime_spec.Mount(destination=destination, type="bind", source=source, options=_READ_ONLY)
