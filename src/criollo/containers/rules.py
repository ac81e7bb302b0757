"""From settings to the rules that shape containers; their class files are read here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from criollo.containers.shape import LOAD_BALANCING, Rules
from criollo.specgen.asked import FORMER
from criollo.specgen.workloads import Workload
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class _Size(Protocol):
    @property
    def bytes(self) -> int: ...


class _Allowing(Protocol):
    @property
    def allowed_annotations(self) -> Sequence[str]: ...


class _Handler(Protocol):
    @property
    def exec_cpu_affinity(self) -> str: ...
    @property
    def monitor_exec_cgroup(self) -> str: ...
    @property
    def container_min_memory(self) -> _Size: ...
    @property
    def allowed_annotations(self) -> Sequence[str]: ...


class RuntimeSettings(Protocol):
    """What counts of the table [crio.runtime]."""

    @property
    def workloads(self) -> Mapping[str, object]: ...
    @property
    def runtimes(self) -> Mapping[str, _Handler]: ...
    @property
    def min_injected_gomaxprocs(self) -> int: ...
    @property
    def infra_ctr_cpuset(self) -> str: ...
    @property
    def shared_cpuset(self) -> str: ...
    @property
    def blockio_config_file(self) -> str: ...
    @property
    def blockio_reload(self) -> bool: ...
    @property
    def rdt_config_file(self) -> str: ...


def open_rules(runtime: RuntimeSettings) -> Rules:
    """The rules of this node (blocking).

    Raises:
        Invalid, HostFailed: a file of classes is malformed, or cannot be read.
    """
    for name, handler in runtime.runtimes.items():
        log.info("runtime handler", handler=name, container_min_memory=handler.container_min_memory.bytes)
        _tell_not_done(f"handler {name}", handler.allowed_annotations)
    block_io = rdt = None
    if runtime.blockio_config_file:
        from criollo.specgen.blockio import open_classes  # a YAML reader: 2 MiB, 30 ms, and few nodes have classes

        block_io = open_classes(Path(runtime.blockio_config_file), reload=runtime.blockio_reload)
    if runtime.rdt_config_file:
        from criollo.specgen.rdt import open_rdt

        rdt = open_rdt(Path(runtime.rdt_config_file))
    workloads = {name: msgspec.convert(each, Workload, from_attributes=True) for name, each in runtime.workloads.items()}
    for name, workload in workloads.items():
        _tell_not_done(f"workload {name}", workload.allowed_annotations)
    return Rules(
        workloads=tuple(workloads.values()),
        gomaxprocs_floor=runtime.min_injected_gomaxprocs,
        shared_cpus=runtime.shared_cpuset,
        infra_cpus=runtime.infra_ctr_cpuset,
        exec_on_first=frozenset(name for name, each in runtime.runtimes.items() if each.exec_cpu_affinity == "first"),
        exec_in_container=frozenset(name for name, each in runtime.runtimes.items() if each.monitor_exec_cgroup == "container"),
        isolates_cpus=_may_isolate((*runtime.runtimes.values(), *workloads.values())),
        block_io=block_io,
        rdt=rdt,
    )


def _may_isolate(allowing: Sequence[_Allowing]) -> bool:
    names = {LOAD_BALANCING, FORMER.get(LOAD_BALANCING, LOAD_BALANCING)}
    return any(not names.isdisjoint(each.allowed_annotations) for each in allowing)


def _tell_not_done(by: str, allowed: Sequence[str]) -> None:
    if not allowed:
        return
    from criollo.containers.performance import not_done_of  # few handlers allow any

    for name in not_done_of(allowed):
        log.warning("allowed annotation has no effect: this build does not do it", by=by, annotation=name)
