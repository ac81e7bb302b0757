"""The service that spreads interrupts, when the CPUs that must have none change: it is told, and its trouble is only logged.

Its configuration outlives a reboot, and the pods that changed it do not: what it banned before is kept in a file of its own.
Source: irqbalance(1).
"""

import os
import shutil
from pathlib import Path
from typing import Final

from criollo.aio import process, threads
from criollo.errors import CriolloError, explain
from criollo.linux import files, knobs
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

NAME: Final = "irqbalance"
NO_RESTORE: Final = "disable"
LIMIT_S: Final = 20.0
_MAX_BYTES: Final = 1 << 20


async def rebalance(config: str, banned: frozenset[int]) -> None:
    """Let it work with other banned CPUs: its service with its configuration, else one run of the program with `banned`."""
    path = process.MINIMAL_ENV["PATH"]
    try:
        if await threads.files(Path(config).is_file) and await _restarted(path):
            return
        if (program := await threads.files(lambda: shutil.which(NAME, path=path))) is None:
            log.warning("interrupts that there are stay where they are: the node has no irqbalance; new ones heed the change")
            return
        env = {**process.MINIMAL_ENV, knobs.BANNED: knobs.mask(banned)}
        await process.run(process.Program([program, "--oneshot"], env), what="cannot run irqbalance", timeout_s=LIMIT_S)
    except CriolloError as error:
        log.warning("irqbalance was not told of other CPUs", error=error)


async def _restarted(path: str) -> bool:
    systemctl = await threads.files(lambda: shutil.which("systemctl", path=path))
    if systemctl is None:
        return False
    what = "cannot restart irqbalance"
    enabled = await process.attempt(process.Program([systemctl, "is-enabled", NAME]), what=what, timeout_s=LIMIT_S)
    if enabled.stdout.strip() != b"enabled":
        return False
    await process.run(process.Program([systemctl, "restart", NAME]), what=what, timeout_s=LIMIT_S)
    return True


async def restore(config: str, kept: str, *, root: str = "") -> None:
    """At start: keep what the configuration bans, or after a reboot put back what was kept. What a killed daemon has left
    unfinished of the two files goes.

    Raises:
        HostFailed, Invalid: one of the files cannot be read or written, or holds no mask.
    """
    is_kept = kept.strip().lower() != NO_RESTORE
    await threads.files(_sweep, [Path(config), *([Path(kept)] if is_kept else [])])
    if not is_kept:
        return
    if await threads.files(_restore, Path(config), Path(kept), root):
        log.info("irqbalance bans again what it did before the node was rebooted", file=config)
        await rebalance(config, frozenset())


def _sweep(written: list[Path]) -> None:
    for file in written:
        with explain(f"sweep beside {file}"):
            for place in {file, Path(os.path.realpath(file))}:
                files.remove_unfinished(place.parent, place.name.__eq__)


def _restore(config: Path, kept: Path, root: str) -> bool:
    with explain(f"restore the CPUs that {config} bans"):
        try:
            text = files.read_limited(config, _MAX_BYTES).decode("utf-8", "surrogateescape")
            affinity = Path(root + knobs.IRQ_AFFINITY).read_text("ascii")
            online = Path(root + "/sys/devices/system/cpu/online").read_text("ascii")
        except FileNotFoundError:
            return False
        if not knobs.parse_list(online) <= knobs.parse_mask(affinity):
            return False  # pods of this boot have changed it
        now = knobs.banned_text(text)
        if not kept.is_file():
            files.write_atomic(kept, f"{now}\n".encode(), 0o644, durable=True)
            return False
        before = files.read_limited(kept, _MAX_BYTES).decode("ascii", "replace").strip()
        if before == now:
            return False
        files.write_atomic(config, knobs.with_banned(text, before).encode("utf-8", "surrogateescape"), 0o644, durable=True)
        return True
