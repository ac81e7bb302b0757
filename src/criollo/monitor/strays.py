"""Monitors that nobody knows: a daemon killed between spawning conmon and writing its pid leaves one behind."""

import os
from collections.abc import Collection
from pathlib import Path

from criollo.aio import process
from criollo.linux import procfs, proctree


def find_strays(bundles: Path, known: Collection[int]) -> list[tuple[int, str]]:
    """(pid, container id) of every conmon that has its bundle in `bundles` and is not in `known` (blocking)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) in known:
            continue
        words = _command_line(int(entry))
        if os.path.dirname(_after(words, "--bundle")) == str(bundles) and (container_id := _after(words, "--cid")):
            found.append((int(entry), container_id))
    return found


def kill_strays(bundles: Path, known: Collection[int]) -> list[str]:
    """End them with the runtime each may still be running; returns their container ids (blocking)."""
    strays = find_strays(bundles, known)
    for pid, _ in strays:
        proctree.kill_tree(pid)
    return [container_id for _, container_id in strays]


def end_monitor_of(bundle: Path) -> None:
    """End the monitor of a container that has no record of it, with all below; it would still write an exit (blocking)."""
    if not bundle.exists():
        return
    for pid, container_id in find_strays(bundle.parent, ()):
        if container_id == bundle.name and (pidfd := procfs.open_pidfd(pid, procfs.start_time(pid) or 0)) is not None:
            proctree.kill_tree(pid)
            process.reap(pidfd, wait=True)
            os.close(pidfd)


def _command_line(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1 << 16).decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def _after(words: list[str], option: str) -> str:
    try:
        return words[words.index(option) + 1]
    except (ValueError, IndexError):
        return ""
