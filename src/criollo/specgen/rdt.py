"""Classes of cache and memory bandwidth (Intel RDT, ARM MPAM): which group of resctrl a container runs in.

    partitions:
      exclusive:
        l3Allocation: {all: 60%}
        classes:
          gold: {l3Allocation: {all: 100%}, kubernetes: {denyPodAnnotation: true}}
      shared:
        classes: {bronze: {mbAllocation: {all: [50%]}}}

The file is checked, and the groups of its classes are made, when it is opened. A class is a group of resctrl, into which the
runtime puts the container's processes (`intelRdt.closID`). Groups stay when the daemon ends: containers go on in them.
Source: crio.conf(5), rdt_config_file; kernel, Documentation/filesystems/resctrl.rst; OCI runtime-spec, IntelRdt.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from criollo.errors import Denied, Invalid, NotFound, Unsupported, explain
from criollo.linux import resctrl
from criollo.linux.files import read_limited
from criollo.model.pod import Record
from criollo.oci import runtime_spec
from criollo.oci.yaml_documents import LIMIT_BYTES, read_documents
from criollo.specgen import shares
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_TAKEN: Final = frozenset({"info", "mon_groups", "mon_data"})  # directories of resctrl itself
_SHARE: Final = re.compile(
    r"[0-9]{1,3}%|[0-9]{1,3}-[0-9]{1,3}%|0x[0-9a-fA-F]{1,16}|[0-9]{1,2}(-[0-9]{1,2})?(,[0-9]{1,2}(-[0-9]{1,2})?)*"
)
_BANDWIDTH: Final = re.compile(r"[0-9]{1,3}%|[0-9]{1,9}MBps")
_CACHE: Final = re.compile(r"all|[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*")


class Kubernetes(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    deny_pod_annotation: bool = False
    deny_container_annotation: bool = False


_Allocation = dict[str, Any] | str | None


class RdtClass(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    l2: _Allocation = msgspec.field(default=None, name="l2Allocation")
    l3: _Allocation = msgspec.field(default=None, name="l3Allocation")
    mb: dict[str, Any] | list[str] | None = msgspec.field(default=None, name="mbAllocation")
    kubernetes: Kubernetes = Kubernetes()


class Partition(RdtClass, frozen=True, kw_only=True, forbid_unknown_fields=True):
    classes: dict[str, RdtClass] = {}


class Option(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    optional: bool = False  # hardware without it will do


class Options(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    l2: Option = Option()
    l3: Option = Option()
    mb: Option = Option()


class Plan(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    options: Options = Options()
    partitions: dict[str, Partition] = {}


def open_rdt(path: Path, *, root: Path = resctrl.ROOT) -> Callable[[str, bool], runtime_spec.IntelRdt] | None:
    """What the classes of a file mean, once their groups are made; None, and a line in the log, on a node without resctrl.

    Raises:
        Invalid: the file is malformed, or shares out what there is not; the message has partition and class.
        Unsupported: it shares out what this hardware has not, and does not say that this is optional.
        HostFailed: it cannot be read, or the kernel refuses a group.
    """
    with explain(f"read rdt_config_file {path}"):
        raw = read_limited(path, LIMIT_BYTES)
    field = f"rdt_config_file {path}"
    plan = parse_plan(raw, field)
    hardware = resctrl.look(root)
    if hardware is None:
        log.warning("RDT is not available: containers that ask for a class are refused", file=path, needs=f"a mounted {root}")
        return None
    for name, text in schemata(plan, hardware, field).items():
        resctrl.make_group(name, text, root)
    classes = {name: each for partition in plan.partitions.values() for name, each in partition.classes.items()}
    log.info("RDT classes loaded", file=path, classes=len(classes))

    def find(name: str, of_pod: bool) -> runtime_spec.IntelRdt:
        if name not in classes:
            raise NotFound("RDT class", name, f"{path} has {', '.join(sorted(classes)) or 'none'}")
        rules = classes[name].kubernetes
        if rules.deny_pod_annotation if of_pod else rules.deny_container_annotation:
            raise Denied(
                f"cannot use RDT class {name}: {path} does not let annotations of {'pods' if of_pod else 'containers'}"
            )
        return runtime_spec.IntelRdt(clos_id=name)

    return find


def parse_plan(raw: bytes, field: str) -> Plan:
    """The text of a class file, with every share checked.

    Raises:
        Invalid: the text is malformed, or a class stands in two partitions.
    """
    documents: list[Any] = read_documents(raw, field)
    if len(documents) > 1:
        raise Invalid(field, f"{len(documents)} documents", "one")
    try:
        plan = msgspec.convert(documents[0] if documents else {}, Plan)
    except msgspec.ValidationError as error:
        raise Invalid(field, str(error), "partitions: NAME: allocations and classes") from None
    known: set[str] = set()
    for partition, content in plan.partitions.items():
        where = f"{field}: partitions.{partition}"
        _check(content, where)
        for name, each in content.classes.items():
            if not _NAME.fullmatch(name) or name in _TAKEN:
                raise Invalid(f"{where}.classes", name, "letters, digits, '_', '-' and '.', and no name of resctrl's own")
            if name in known:
                raise Invalid(f"{where}.classes", name, "each class in one partition")
            _check(each, f"{where}.classes.{name}")
            known.add(name)
    return plan


def schemata(plan: Plan, hardware: resctrl.Hardware, field: str) -> dict[str, str]:
    """What the group of each class is written. Raises Invalid and Unsupported as `open_rdt`."""
    lines: dict[str, list[str]] = {name: [] for each in plan.partitions.values() for name in each.classes}
    for kind in ("l2", "l3"):
        if _is_used(plan, kind):
            names = [name for name in hardware.caches if name.startswith(kind.upper())]
            _demand(plan, kind, bool(names), field)
            for name in names:
                _share_cache(plan, kind, name, hardware.caches[name], lines, field=field)
    if _is_used(plan, "mb"):
        _demand(plan, "mb", hardware.bandwidth is not None, field)
        if hardware.bandwidth is not None:
            _share_bandwidth(plan, hardware.bandwidth, lines)
    return {name: "".join(f"{line}\n" for line in each) for name, each in lines.items()}


def _share_cache(plan: Plan, kind: str, name: str, cache: resctrl.Cache, lines: dict[str, list[str]], *, field: str) -> None:
    given: dict[str, dict[int, int]] = {each: {} for each in lines}
    whole = {partition: _by_cache(getattr(content, kind), field) for partition, content in plan.partitions.items()}
    for one in cache.ids:
        masks = shares.partition_masks(whole, name, cache, one, field=f"{field}: partitions")
        for partition, content in plan.partitions.items():
            for group, each in content.classes.items():
                where = f"{field}: partitions.{partition}.classes.{group}"
                share = shares.said(_by_cache(getattr(each, kind), where), one, name) or "100%"
                given[group][one] = shares.bits(share, masks[partition], cache.min_bits, field=where)
    for group, found in given.items():
        lines[group].append(f"{name}:" + ";".join(f"{one}={mask:x}" for one, mask in found.items()))


def _share_bandwidth(plan: Plan, node: resctrl.Bandwidth, lines: dict[str, list[str]]) -> None:
    for content in plan.partitions.values():
        for group, each in content.classes.items():
            whole, own = _by_cache(content.mb, ""), _by_cache(each.mb, "")
            rates = (f"{one}={shares.bandwidth(whole, own, node, one)}" for one in node.ids)
            lines[group].append("MB:" + ";".join(rates))


def _is_used(plan: Plan, kind: str) -> bool:
    contents = plan.partitions.values()
    return any(getattr(each, kind) is not None for content in contents for each in (content, *content.classes.values()))


def _demand(plan: Plan, kind: str, is_there: bool, field: str) -> None:
    if not is_there and not getattr(plan.options, kind).optional:
        raise Unsupported(
            f"cannot use {field}: it shares out {kind.upper()}, which this hardware does not; set options.{kind}.optional"
        )


def _check(each: RdtClass, where: str) -> None:
    for kind, allocation in (("l2Allocation", each.l2), ("l3Allocation", each.l3)):
        for cache, share in _by_cache(allocation, f"{where}.{kind}").items():
            parts = share.values() if isinstance(share, dict) else (share,)
            if not parts or not all(isinstance(part, str) and _SHARE.fullmatch(part) for part in parts):
                raise Invalid(f"{where}.{kind}.{cache}", share, 'a share as text, like 50%, 50-60%, "0xff0" or 0-5')
    for cache, rates in _by_cache(each.mb, f"{where}.mbAllocation").items():
        given = rates if isinstance(rates, list) else [rates]
        if not given or not all(isinstance(share, str) and _BANDWIDTH.fullmatch(share) for share in given):
            raise Invalid(f"{where}.mbAllocation.{cache}", rates, "a list of shares like 80% and 1000MBps")


def _by_cache(allocation: _Allocation | list[str], where: str) -> dict[str, Any]:
    if allocation is None:
        return {}
    if not isinstance(allocation, dict):
        return {"all": allocation}
    for cache in allocation:
        if not _CACHE.fullmatch(cache):
            raise Invalid(where, cache, "'all', or ids of caches like 0,1")
    return allocation
