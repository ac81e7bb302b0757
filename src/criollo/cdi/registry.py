"""Which CDI devices this node has, and what a container gets with them.

    /etc/cdi/*.json, *.yaml         written by administrators
    /var/run/cdi/*.json, *.yaml     written by drivers; the later directory wins where both describe a device

Read when a container first asks for a device, and again after a change. A spec that cannot be read hurts no other; devices
that two specs of one directory describe cannot be used. Blocking: for a thread.
Source: CDI SPEC.md; the reference implementation's cache.go for precedence and container-edits.go for what is filled in.
"""

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from criollo.aio.watch import Remembered
from criollo.cdi.document import (
    LIMIT_BYTES,
    STAGES,
    ContainerEdits,
    Device,
    Hook,
    IntelRdt,
    Mount,
    Node,
    Spec,
    is_qualified,
    read_spec,
)
from criollo.errors import Invalid, NotFound
from criollo.linux.files import read_limited
from criollo.linux.near import is_near
from criollo.model.edits import EditedNode, Edits
from criollo.oci import runtime_spec
from criollo.telemetry import texts
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

ANNOTATION: Final = "cdi.k8s.io/"  # a prefix: the rest names who asks; values are names of devices with commas between
HOOK_ENV: Final = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)  # else nothing (CVE-2025-23266)

_MOST_FILES: Final = 1000  # of a directory
_SUFFIXES: Final = (".json", ".yaml")
_TYPES: Final = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


class _Known(NamedTuple):
    path: str
    rank: int  # of its directory
    spec: Spec
    device: Device


class _Catalogue(NamedTuple):
    devices: dict[str, _Known]
    twins: dict[str, tuple[str, ...]]  # device → the specs that contradict each other
    broken: dict[str, str]  # path → why


class Registry:
    """The CDI devices of a node. Safe to share between threads."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = tuple({os.path.realpath(each): each for each in directories}.values())  # /var/run is /run
        self._told: dict[str, str] = {}
        self._catalogue = Remembered([Path(each) for each in self._directories], self._load)

    def resolve(self, names: Iterable[str]) -> Edits:
        """The edits for devices by their qualified names, in this order; those of a spec before those of its first device.

        Raises:
            NotFound: no spec describes one of them.
            Invalid: two specs contradict each other, or a device of the host is not as its spec says.
        """
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return Edits()
        catalogue = self._catalogue.get()
        missing = [name for name in wanted if name not in catalogue.devices]
        if missing:
            self._refuse(missing, catalogue)
        found, seen, moving = [], set(), []
        for name, known in ((name, catalogue.devices[name]) for name in wanted):
            if known.path not in seen:
                seen.add(known.path)
                found.append(known.spec.container_edits)
            found.append(known.device.container_edits)
            if known.device.container_edits.net_devices or known.spec.container_edits.net_devices:
                moving.append(name)
        return msgspec.structs.replace(_merged(found), net_devices_of=tuple(moving))

    def edits(self, devices: Iterable[str], annotations: Mapping[str, str]) -> Edits:
        """The edits for what a container asks for in its own request; see `requested` and `resolve`."""
        return self.resolve(requested(devices, annotations))

    def close(self) -> None:
        self._catalogue.close()

    def _refuse(self, missing: Sequence[str], catalogue: _Catalogue) -> None:
        for name in missing:
            if name in catalogue.twins:
                raise Invalid("CDI device", name, f"one spec that describes it, not {' and '.join(catalogue.twins[name])}")
        hint = f"no spec in {', '.join(self._directories) or 'cdi_spec_dirs (empty)'} describes it"
        if catalogue.broken:
            hint += f"; specs that cannot be read: {'; '.join(catalogue.broken.values())}"
        raise NotFound("CDI device", ", ".join(missing), hint)

    def _load(self) -> _Catalogue:
        catalogue = _Catalogue({}, {}, {})
        for rank, directory in enumerate(self._directories):
            for path in _files(directory):
                try:
                    spec = read_spec(read_limited(path, LIMIT_BYTES), path)
                except FileNotFoundError:
                    continue  # it went away meanwhile
                except (Invalid, OSError) as error:
                    catalogue.broken[path] = str(error) if isinstance(error, Invalid) else f"{path}: {error.strerror}"
                    continue
                for device in spec.devices:
                    _enter(catalogue, f"{spec.kind}={device.name}", _Known(path, rank, spec, device))
        for path, why in catalogue.broken.items():
            if self._told.get(path) != why:
                log.warning(texts.CDI_ERRORS, path=path, error=why)
        self._told = dict(catalogue.broken)
        return catalogue


def requested(devices: Iterable[str], annotations: Mapping[str, str]) -> tuple[str, ...]:
    """The devices that a container asks for: those of CDI_devices, then those of its annotations that are not among them.

    Raises:
        Invalid: one is no name of a device.
    """
    found = dict.fromkeys(devices)
    for key, value in sorted(annotations.items()):
        if not key.startswith(ANNOTATION):
            continue
        for name in value.split(","):
            if name in found:
                log.debug("Skipping duplicate annotated CDI device", device=name)
            found.setdefault(name, None)
    for name in found:
        if not is_qualified(name):
            raise Invalid("CDI_devices", name, "the name of a CDI device: vendor/class=device")
    return tuple(found)


def _files(directory: str) -> list[str]:
    """Specs in a directory, in the order of their names; a directory that is not there has none."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(_SUFFIXES))
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("directory of CDI specs cannot be read", path=directory, error=error.strerror)
        return []
    if len(names) > _MOST_FILES:
        log.warning("too many CDI specs; the last ones are left out", path=directory, files=len(names), read=_MOST_FILES)
    return [os.path.join(directory, name) for name in names[:_MOST_FILES]]


def _enter(catalogue: _Catalogue, name: str, new: _Known) -> None:
    """Directories come in order: a device that is known from an earlier one gives way."""
    old = catalogue.devices.get(name)
    if old is not None and old.rank == new.rank:
        catalogue.twins[name] = (old.path, new.path)
        del catalogue.devices[name]
    elif name not in catalogue.twins or not _same_directory(catalogue.twins[name][0], new.path):
        catalogue.twins.pop(name, None)
        catalogue.devices[name] = new


def _same_directory(one: str, other: str) -> bool:
    return os.path.dirname(one) == os.path.dirname(other)


def _merged(all_edits: Sequence[ContainerEdits]) -> Edits:
    stages: dict[str, list[runtime_spec.Hook]] = {}
    for hook in (hook for edits in all_edits for hook in edits.hooks):
        stages.setdefault(STAGES[hook.hook_name], []).append(_hook(hook))
    rdt = [edits.intel_rdt for edits in all_edits if edits.intel_rdt is not None]
    return Edits(
        env=tuple(word for edits in all_edits for word in edits.env),
        nodes=tuple(_node(node) for edits in all_edits for node in edits.device_nodes),
        mounts=tuple(_mount(mount) for edits in all_edits for mount in edits.mounts),
        hooks=runtime_spec.Hooks(**{stage: tuple(hooks) for stage, hooks in stages.items()}),
        net_devices={each.host_interface_name: each.name for edits in all_edits for each in edits.net_devices},
        intel_rdt=_rdt(rdt[-1]) if rdt else None,
        gids=tuple(gid for edits in all_edits for gid in edits.additional_gids if gid),
    )


def _rdt(given: IntelRdt) -> runtime_spec.IntelRdt:
    return runtime_spec.IntelRdt(
        clos_id=given.clos_id,
        l3_cache_schema=given.l3_cache_schema,
        mem_bw_schema=given.mem_bw_schema,
        schemata=given.schemata,
        enable_monitoring=given.is_monitored,
    )


def _node(node: Node) -> EditedNode:
    """A node with what its spec leaves out filled in from the host's; one that is told completely need not be there."""
    source = node.host_path or node.path
    told = bool(node.type) and (node.major != 0 or node.type == "p")
    try:
        if not is_near(source):
            raise OSError(errno.EREMOTEIO, "on a file system that may hang; give type, major and minor in the spec")
        status = os.lstat(source)
    except OSError as error:
        if not told:
            raise Invalid("CDI device node", source, f"a device of this host ({error.strerror})") from error
        return _edited(node, node.type, node.major, node.minor, node.file_mode)
    mode = stat.S_IMODE(status.st_mode) if node.file_mode is None else node.file_mode
    if told:
        return _edited(node, node.type, node.major, node.minor, mode)
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "")
    if not kind or node.type not in ("", kind, "u" if kind == "c" else kind):
        raise Invalid("CDI device node", source, f"a device of type {node.type or 'b, c or p'}, not {kind or 'something else'}")
    major, minor = (0, 0) if kind == "p" else (os.major(status.st_rdev), os.minor(status.st_rdev))
    return _edited(node, node.type or kind, major, minor, mode)


def _edited(node: Node, kind: str, major: int, minor: int, mode: int | None) -> EditedNode:
    return EditedNode(
        path=os.path.normpath(node.path),
        host_path=node.host_path or node.path,
        type=kind,
        major=major,
        minor=minor,
        mode=mode,
        uid=node.uid,
        gid=node.gid,
        permissions="".join(dict.fromkeys(node.permissions)) or "rwm",
    )


def _mount(mount: Mount) -> runtime_spec.Mount:
    kind, options = mount.type or "bind", mount.options
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options = ("rbind", *options)
    destination = "/" + os.path.normpath(mount.container_path).lstrip("/")
    return runtime_spec.Mount(destination=destination, type=kind, source=mount.host_path, options=options)


def _hook(hook: Hook) -> runtime_spec.Hook:
    env = HOOK_ENV if hook.env is None else hook.env
    return runtime_spec.Hook(path=hook.path, args=hook.args, env=env, timeout=hook.timeout)
