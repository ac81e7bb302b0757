"""resctrl: which caches and how much memory bandwidth there is to share out, and the groups that have a share. Blocking.

    /sys/fs/resctrl/info/L3/{cbm_mask,min_cbm_bits}     L3CODE and L3DATA instead, where code and data are apart
                    info/MB/{min_bandwidth,bandwidth_gran}
                    schemata                            of everybody else; says which caches there are
                    <group>/{schemata,tasks}
Source: kernel, Documentation/filesystems/resctrl.rst.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from criollo.errors import HostFailed

ROOT: Final = Path("/sys/fs/resctrl")
_LINE: Final = re.compile(r"\s*([A-Z0-9]{2,8}):((?:[0-9]{1,5}=[0-9a-fA-F]{1,16};?)+)\s*")
_PERCENT: Final = 100


class Cache(NamedTuple):
    """Caches of one level: the bits that stand for all of one, the fewest of them that make a share, their ids."""

    mask: int
    min_bits: int
    ids: tuple[int, ...]


class Bandwidth(NamedTuple):
    """Controllers of memory bandwidth, in percent or in MBps; a share is a multiple of `step`, from `least` on."""

    least: int
    step: int
    ids: tuple[int, ...]
    in_mbps: bool


class Hardware(NamedTuple):
    """What this node shares out, by the names of schemata: L3, or L3CODE and L3DATA."""

    caches: Mapping[str, Cache]
    bandwidth: Bandwidth | None


def look(root: Path = ROOT) -> Hardware | None:
    """What is there; None where the kernel has no resctrl or it is not mounted."""
    try:
        lines = dict(parse_schemata((root / "schemata").read_text("ascii", "replace")))
        caches = {
            name: Cache(_number(root, name, "cbm_mask", 16), _number(root, name, "min_cbm_bits"), tuple(values))
            for name, values in lines.items()
            if name != "MB"
        }
        bandwidth = None
        if values := lines.get("MB"):
            in_mbps = any(value > _PERCENT for value in values.values())
            bandwidth = Bandwidth(
                _number(root, "MB", "min_bandwidth"), _number(root, "MB", "bandwidth_gran"), tuple(values), in_mbps
            )
    except (OSError, ValueError):
        return None
    return Hardware(caches, bandwidth)


def parse_schemata(text: str) -> dict[str, dict[int, int]]:
    """Shares by name and id; masks are hexadecimal, bandwidth is decimal. Lines of other shapes are left out."""
    found = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            base = 10 if match[1].startswith("MB") else 16
            entries = (entry.split("=") for entry in match[2].split(";") if entry)
            try:
                found[match[1]] = {int(one): int(value, base) for one, value in entries}
            except ValueError:
                continue
    return found


def make_group(name: str, schemata: str, root: Path = ROOT) -> None:
    """Make a group, or give one another share. Safe to repeat; empty schemata leave its share as it is.

    Raises:
        HostFailed: the kernel refused; the message has its reason.
    """
    try:
        (root / name).mkdir(exist_ok=True)
        if schemata:
            (root / name / "schemata").write_text(schemata, "ascii")
    except OSError as error:
        raise HostFailed(f"cannot make resctrl group {name}: {error.strerror}; {_reason(root)}") from error


def _reason(root: Path) -> str:
    try:
        return (root / "info" / "last_cmd_status").read_text("ascii", "replace").strip() or "the kernel says no more"
    except OSError:
        return "the kernel says no more"


def _number(root: Path, kind: str, name: str, base: int = 10) -> int:
    return int((root / "info" / kind / name).read_text("ascii"), base)
