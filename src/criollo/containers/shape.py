"""What a container may use: its request, as its workload, its pod's annotations and the settings of the node change it.

    unified-cgroup.crio.io[/CONTAINER]      FILE=VALUE;...  raw files of cgroup v2; a value may be base64
    cpu-shared.crio.io/CONTAINER            enable          its exclusive CPUs, and those of shared_cpuset
    cpu-quota.crio.io[/CONTAINER]           disable         no quota, for whole CPUs of its own (`performance`; more there)
    skip-gomaxprocs.crio.io                 true            no GOMAXPROCS
    blockio.resources.beta.kubernetes.io/container.CONTAINER, .../pod       a class of blockio_config_file
    rdt.resources.beta.kubernetes.io/container.CONTAINER, .../pod           a class of rdt_config_file
    io.kubernetes.cri.blockio-class, io.kubernetes.cri.rdt-class            the same, of the container itself

The first four and `io.kubernetes.cri.rdt-class` need the leave of the handler or the workload (`allowed_annotations`).
A node where nothing of this is configured pays for a few look-ups in dictionaries.
"""

import base64
import binascii
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import msgspec

from criollo.errors import Invalid, Unsupported
from criollo.model.container import ContainerConfig, Tuning
from criollo.model.pod import PodConfig, Resources
from criollo.oci import runtime_spec
from criollo.specgen import cpus, workloads
from criollo.specgen.asked import FORMER, find
from criollo.specgen.request import SpecRequest
from criollo.specgen.workloads import Workload

UNIFIED: Final = "unified-cgroup.crio.io"
CPU_SHARED: Final = "cpu-shared.crio.io"
SKIP_GOMAXPROCS: Final = "skip-gomaxprocs.crio.io"
LOAD_BALANCING: Final = "cpu-load-balancing.crio.io"
BLOCKIO: Final = "blockio"
RDT: Final = "rdt"


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the node's configuration says. The last two give what a class means (and whether a pod's annotation named it),
    or raise NotFound."""

    workloads: tuple[Workload, ...] = ()
    gomaxprocs_floor: int = 0
    shared_cpus: str = ""
    infra_cpus: str = ""  # of infra containers and monitors; empty: all
    exec_on_first: frozenset[str] = frozenset()  # handlers with exec_cpu_affinity = "first"
    exec_in_container: frozenset[str] = frozenset()  # handlers with monitor_exec_cgroup = "container"
    isolates_cpus: bool = False  # somebody may ask for cpu-load-balancing.crio.io
    block_io: Callable[[str, bool], runtime_spec.BlockIo] | None = None
    rdt: Callable[[str, bool], runtime_spec.IntelRdt] | None = None


class Shape(NamedTuple):
    """What a container gets. `env` is for names that neither image nor request set; `notes` are for the log.

    `shared_cpus`, `no_cpu_quota` and `tuning` are for its record: they outlast updates.
    """

    resources: Resources
    env: tuple[tuple[str, str], ...] = ()
    exec_cpu: str = ""
    block_io: runtime_spec.BlockIo | None = None
    rdt: runtime_spec.IntelRdt | None = None
    notes: tuple[str, ...] = ()
    shared_cpus: str = ""
    no_cpu_quota: bool = False
    tuning: Tuning | None = None


class Asked(NamedTuple):
    """Who wants something: a container of a pod, and the annotations that its handler and workload allow."""

    config: ContainerConfig
    pod: PodConfig
    allowed: Collection[str]
    handler: str

    def wish(self, name: str, *, of: str = "") -> str:
        """An allowed annotation, the container's before its pod's; empty without."""
        for annotations in (self.config.annotations, self.pod.annotations) if self.allowed else ():
            if (found := find(annotations, name, self.allowed, of=of)) is not None:
                return found
        return ""


def shape_of(asked: Asked, rules: Rules, *, cgroup_parent: str) -> Shape:
    """What a container gets. May read the file of block I/O classes: not for the loop.

    Raises:
        Invalid: an annotation that cannot be understood, or shared CPUs for a container without CPUs of its own.
        NotFound: no such class.
        Unsupported: shared CPUs or an RDT class on a node that has none.
    """
    resources, annotations = asked.config.resources, asked.pod.annotations
    workload = workloads.find(rules.workloads, annotations)
    if workload is not None:
        resources = workloads.shaped(workload, asked.config.name, annotations, resources)
    if unified := _unified(asked):
        resources = msgspec.structs.replace(resources, unified={**resources.unified, **unified})
    exclusive, env = resources.cpuset_cpus, list[tuple[str, str]]()
    is_sharing = bool(annotations) and asked.wish(CPU_SHARED, of=asked.config.name) == "enable"
    if is_sharing:
        resources = _share(resources, rules.shared_cpus, asked.config.name)
        env += [("OPENSHIFT_ISOLATED_CPUS", exclusive), ("OPENSHIFT_SHARED_CPUS", rules.shared_cpus)]
    if workload is None and (threads := _gomaxprocs(asked, rules, resources, cgroup_parent)) is not None:
        env.append(("GOMAXPROCS", str(threads)))
    first = (rules.shared_cpus if is_sharing else exclusive) if asked.handler in rules.exec_on_first else ""
    block_io, rdt, notes = _classes(asked, rules)
    exec_cpu = str(min(cpus.parse(first, "cpuset_cpus"))) if first else ""
    shape = Shape(resources, tuple(env), exec_cpu, block_io, rdt, notes, rules.shared_cpus if is_sharing else "")
    if not (asked.allowed and annotations):
        return shape
    from criollo.containers.performance import tuned  # few handlers allow any of it

    return tuned(shape, asked, cgroup_parent=cgroup_parent)


def applied(shape: Shape, request: SpecRequest) -> SpecRequest:
    """The request for a spec, of that shape."""
    if shape == Shape(request.config.resources):
        return request
    return msgspec.structs.replace(
        request,
        config=msgspec.structs.replace(request.config, resources=shape.resources),
        env_if_unset=shape.env,
        exec_cpu=shape.exec_cpu,
        block_io=shape.block_io,
        rdt=shape.rdt,
    )


def parse_unified(text: str, field: str) -> dict[str, str]:
    """`memory.high=1G;pids.max=MTAw` as files and values. What is base64 of printable text is decoded.

    Raises:
        Invalid: a part without `=`.
    """
    found = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if not part.strip():
            continue
        if not equals or not name.strip():
            raise Invalid(field, part, "FILE=VALUE, several of them with ';' in between")
        found[name.strip()] = _plain(value)
    return found


def _plain(value: str) -> str:
    """`1000` is base64 of three bytes of nothing readable: a number stays one."""
    try:
        decoded = base64.b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return value
    return decoded if decoded and all(c.isprintable() or c == "\n" for c in decoded) else value


def _unified(asked: Asked) -> dict[str, str]:
    if not asked.allowed:
        return {}
    name = asked.config.name
    for of in (name, ""):
        if said := asked.wish(UNIFIED, of=of):
            return parse_unified(said, f"annotation {UNIFIED}")
    dotted = f"{FORMER[UNIFIED]}.{name}"  # how it was written once
    is_allowed = not {UNIFIED, FORMER[UNIFIED]}.isdisjoint(asked.allowed)
    if is_allowed and (said := asked.pod.annotations.get(dotted, "")):
        return parse_unified(said, f"annotation {dotted}")
    return {}


def _share(resources: Resources, shared: str, container: str) -> Resources:
    if not shared:
        raise Unsupported(
            f"cannot give container {container} shared CPUs: the node has none; set shared_cpuset in crio.runtime"
        )
    if not resources.cpuset_cpus:
        raise Invalid(f"annotation {CPU_SHARED}/{container}", "enable", "a container with CPUs of its own (cpuset_cpus)")
    return msgspec.structs.replace(resources, cpuset_cpus=cpus.joined(resources.cpuset_cpus, shared))


def _gomaxprocs(asked: Asked, rules: Rules, resources: Resources, cgroup_parent: str) -> int | None:
    if rules.gomaxprocs_floor <= 0 or asked.wish(SKIP_GOMAXPROCS) == "true":
        return None
    return cpus.gomaxprocs(
        shares=resources.cpu_shares,
        quota_us=resources.cpu_quota_us,
        cgroup_parent=cgroup_parent,
        floor=rules.gomaxprocs_floor,
    )


def class_of(asked: Asked, kind: str) -> tuple[str, bool]:
    """The class that annotations name, and whether it is the pod's that do: the container's own count more."""
    own, domain = f"io.kubernetes.cri.{kind}-class", f"{kind}.resources.beta.kubernetes.io"
    if own in asked.config.annotations and (kind != RDT or own in asked.allowed):
        return asked.config.annotations[own], False
    for key in (f"{domain}/container.{asked.config.name}", f"{domain}/pod"):
        if key in asked.pod.annotations:
            return asked.pod.annotations[key], True
    return "", False


def _classes(asked: Asked, rules: Rules) -> tuple[runtime_spec.BlockIo | None, runtime_spec.IntelRdt | None, tuple[str, ...]]:
    block_io, rdt, notes = None, None, []
    name, of_pod = class_of(asked, BLOCKIO)
    if name and rules.block_io is not None:
        block_io = rules.block_io(name, of_pod)
    elif name:
        notes.append(f"block I/O class {name} is not applied: the node has no classes (blockio_config_file)")
    name, of_pod = class_of(asked, RDT)
    if name and rules.rdt is None:
        raise Unsupported(
            f"cannot give container {asked.config.name} RDT class {name}: this node has no RDT classes: "
            "its kernel or hardware has no resctrl, or rdt_config_file is not set"
        )
    if name and rules.rdt is not None:
        rdt = rules.rdt(name, of_pod)
    return block_io, rdt, tuple(notes)
