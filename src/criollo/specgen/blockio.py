"""Classes of block I/O: how much a container may read and write, by device.

    Classes:
      LowPrio:
        - Weight: 80                          of all devices
        - Devices: [/dev/sd?, /dev/vda]       shell patterns, links followed; what matches no device is left out
          ThrottleReadBps: 100M               k M G T are powers of 1000, Ki Mi Gi Ti of 1024
          ThrottleWriteBps: 50M
          ThrottleReadIOPS: 10k
          ThrottleWriteIOPS: 5k
          Weight: 50

The file is checked whole when it is opened, so that a slip does not wait for the first container of its class. Devices are
looked for then, and again for each container where `blockio_reload` is set. Blocking.
Source: crio.conf(5), blockio_config_file; OCI runtime-spec, config-linux.md, Block IO.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from criollo.errors import Invalid, NotFound, explain
from criollo.linux.block_devices import matching
from criollo.linux.files import read_limited
from criollo.model.pod import Record
from criollo.oci import runtime_spec
from criollo.oci.yaml_documents import LIMIT_BYTES, read_documents
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

_POWERS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([0-9]{1,18}) ?(k|M|G|T|Ki|Mi|Gi|Ti|)")
_THROTTLES: Final = ("read_bps", "write_bps", "read_iops", "write_iops")
_WEIGHTS: Final = range(10, 1001)
_Text = Annotated[str, msgspec.Meta(max_length=64)]


class Devices(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for some devices, or for all where none are named. Empty: not said."""

    devices: tuple[str, ...] = msgspec.field(default=(), name="Devices")
    read_bps: _Text | int = msgspec.field(default="", name="ThrottleReadBps")
    write_bps: _Text | int = msgspec.field(default="", name="ThrottleWriteBps")
    read_iops: _Text | int = msgspec.field(default="", name="ThrottleReadIOPS")
    write_iops: _Text | int = msgspec.field(default="", name="ThrottleWriteIOPS")
    weight: _Text | int = msgspec.field(default="", name="Weight")


class _File(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    classes: dict[str, tuple[Devices, ...]] = msgspec.field(default={}, name="Classes")


Numbers = Callable[[str], Sequence[tuple[int, int]]]
"""Major and minor numbers of the devices that a pattern matches."""


def open_classes(path: Path, *, reload: bool) -> Callable[[str, bool], runtime_spec.BlockIo]:
    """What the classes of a file mean; with `reload` the file and the devices are looked at each time.

    Raises:
        Invalid: the file is malformed; the message has class and key.
        HostFailed: it cannot be read.
    """
    first = {name: meaning(name, entries, device_numbers) for name, entries in read_classes(path).items()}
    log.info("block I/O classes loaded", file=path, classes=len(first))

    def find(name: str, of_pod: bool) -> runtime_spec.BlockIo:
        known = first
        if reload:
            known = {key: meaning(key, entries, device_numbers) for key, entries in read_classes(path).items()}
        if name not in known:
            raise NotFound("block I/O class", name, f"{path} has {', '.join(sorted(known)) or 'none'}")
        return known[name]

    return find


def read_classes(path: Path) -> Mapping[str, tuple[Devices, ...]]:
    """The classes of a file. Raises as `open_classes`."""
    with explain(f"read blockio_config_file {path}"):
        raw = read_limited(path, LIMIT_BYTES)
    return parse_classes(raw, f"blockio_config_file {path}")


def parse_classes(raw: bytes, field: str) -> Mapping[str, tuple[Devices, ...]]:
    """The text of a class file, with every quantity checked.

    Raises:
        Invalid: it is malformed.
    """
    documents: list[Any] = read_documents(raw, field)
    if len(documents) > 1:
        raise Invalid(field, f"{len(documents)} documents", "one")
    try:
        found = msgspec.convert(documents[0] if documents else {}, _File).classes
    except msgspec.ValidationError as error:
        raise Invalid(field, str(error), "Classes: NAME: a list of Devices, Throttle... and Weight") from None
    for name, entries in found.items():
        meaning(name, entries, lambda pattern: ((0, 0),), field=field)
    return found


def meaning(name: str, entries: Sequence[Devices], numbers: Numbers, *, field: str = "blockio") -> runtime_spec.BlockIo:
    """A class as the runtime takes it; a later entry wins for the same device.

    Raises:
        Invalid: a quantity that is none, a weight out of range, or a throttle without devices.
    """
    weight: int | None = None
    by_device: dict[str, dict[tuple[int, int], int]] = {key: {} for key in ("weight", *_THROTTLES)}
    for entry in entries:
        said = {key: _quantity(getattr(entry, key), f"{field}: {name}.{key}") for key in by_device}
        if said["weight"] is not None and said["weight"] not in _WEIGHTS:
            raise Invalid(f"{field}: {name}.Weight", said["weight"], "a number from 10 to 1000")
        if not entry.devices:
            if any(said[key] is not None for key in _THROTTLES):
                raise Invalid(f"{field}: {name}", "a throttle without Devices", "Devices beside it")
            weight = said["weight"] if said["weight"] is not None else weight
            continue
        for device in [number for pattern in entry.devices for number in numbers(pattern)]:
            for key, value in said.items():
                if value is not None:
                    by_device[key][device] = value
    return runtime_spec.BlockIo(
        weight=weight,
        weight_device=tuple(
            runtime_spec.WeightDevice(major=major, minor=minor, weight=each)
            for (major, minor), each in by_device["weight"].items()
        ),
        throttle_read_bps_device=_throttles(by_device["read_bps"]),
        throttle_write_bps_device=_throttles(by_device["write_bps"]),
        throttle_read_iops_device=_throttles(by_device["read_iops"]),
        throttle_write_iops_device=_throttles(by_device["write_iops"]),
    )


def _throttles(rates: Mapping[tuple[int, int], int]) -> tuple[runtime_spec.ThrottleDevice, ...]:
    return tuple(runtime_spec.ThrottleDevice(major=major, minor=minor, rate=rate) for (major, minor), rate in rates.items())


def device_numbers(pattern: str) -> list[tuple[int, int]]:
    """The block devices that a pattern matches; none is told."""
    found = matching(pattern)
    if not found:
        log.warning("no block device matches; what is said of it has no effect", pattern=pattern)
    return found


def _quantity(said: str | int, field: str) -> int | None:
    if said == "":
        return None
    match = _QUANTITY.fullmatch(str(said))
    if match is None:
        raise Invalid(field, said, "a number, with k, M, G, T, Ki, Mi, Gi or Ti")
    return int(match[1]) * _POWERS[match[2]]
