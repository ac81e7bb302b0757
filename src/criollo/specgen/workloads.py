"""Workloads: kinds of pods whose containers get other CPU values than they ask for. Pure.

    annotation of the pod                 what it does
    <activation_annotation>               switches the workload on, whatever its value
    <annotation_prefix>/<container>       JSON: {"cpushares": 512, "cpuset": "0-1", "cpulimit": 250, ...}

What a container's annotation does not say is taken from the workload, and what neither says from the request.
Source: crio.conf(5), CRIO.RUNTIME.WORKLOADS TABLE.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from criollo.errors import Invalid
from criollo.model.pod import Record, Resources
from criollo.specgen import cpus

DEFAULT_PERIOD_US: Final = 100_000  # kernel, kernel/sched/fair.c: default_cfs_period
LEAST_QUOTA_US: Final = 1000  # kernel, kernel/sched/core.c: min_cfs_quota_period
_MILLI: Final = 1000
_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]


class WorkloadResources(Record, frozen=True, kw_only=True):
    """Zero and empty: not said. The names are those of the annotation's JSON; `cpulimit` in thousandths of a CPU."""

    cpushares: _Number = 0
    cpuquota: _Number = 0
    cpuperiod: _Number = 0
    cpuset: str = ""
    cpulimit: _Number = 0


class Workload(Record, frozen=True, kw_only=True):
    activation_annotation: str
    annotation_prefix: str = ""
    allowed_annotations: tuple[str, ...] = ()
    resources: WorkloadResources = WorkloadResources()


_DECODER: Final = msgspec.json.Decoder(WorkloadResources | None)


def find(workloads: Sequence[Workload], pod_annotations: Mapping[str, str]) -> Workload | None:
    """The workload that a pod's annotations switch on: the first that is configured."""
    for workload in workloads:
        if workload.activation_annotation in pod_annotations:
            return workload
    return None


def shaped(workload: Workload, container: str, pod_annotations: Mapping[str, str], asked: Resources) -> Resources:
    """What a container of the workload gets.

    Raises:
        Invalid: its annotation is no JSON of this form, or the list of CPUs is none.
    """
    said = _said(workload, container, pod_annotations)
    if said is None:
        return asked
    period_us = said.cpuperiod or asked.cpu_period_us or DEFAULT_PERIOD_US
    quota_us = max(said.cpulimit * period_us // _MILLI, LEAST_QUOTA_US) if said.cpulimit else said.cpuquota
    given = {
        "cpu_shares": said.cpushares,
        "cpu_quota_us": quota_us,
        "cpu_period_us": said.cpuperiod or (period_us if quota_us else 0),
        "cpuset_cpus": said.cpuset,
    }
    return msgspec.structs.replace(asked, **{name: value for name, value in given.items() if value})


def _said(workload: Workload, container: str, pod_annotations: Mapping[str, str]) -> WorkloadResources | None:
    """The container's annotation over the workload's own values; `null` takes the container out."""
    key = f"{workload.annotation_prefix}/{container}"
    usual = workload.resources
    if not workload.annotation_prefix or key not in pod_annotations:
        return usual
    try:
        own = _DECODER.decode(pod_annotations[key])
    except msgspec.MsgspecError as error:
        raise Invalid(f"annotation {key}", pod_annotations[key], f'JSON like {{"cpushares": 512}}: {error}') from None
    if own is None:
        return None
    cpus.parse(own.cpuset, f"annotation {key}")
    fields = WorkloadResources.__struct_fields__
    return WorkloadResources(**{name: getattr(own, name) or getattr(usual, name) for name in fields})
