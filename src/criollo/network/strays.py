"""Plugins that outlive the daemon that called them: what they go on to set up, nobody would ever take down.

A plugin that is killed half-way is nothing new to networks: a DEL follows, as after one that ran into its time limit.
"""

import os
import signal
from collections.abc import Container
from typing import Final

from criollo.aio import process

_LIMIT_S: Final = 5.0  # one that sleeps in the kernel dies later; nobody can do more
_ROUNDS: Final = 3
_ENVIRON_BYTES: Final = 1 << 16
_WORD: Final = b"CNI_CONTAINERID="


def kill_strays(pods: Container[str]) -> list[str]:
    """End all plugins that work for one of the pods, and those that they call in turn; the pod of each (blocking)."""
    ended: list[str] = []
    for _ in range(_ROUNDS):  # one may have called another that was not there yet
        found = [pod for pid in filter(str.isdecimal, os.listdir("/proc")) if (pod := _pod_of(pid)) in pods and _kill(pid, pod)]
        if not found:
            break
        ended += found
    return ended


def _kill(pid: str, pod: str) -> bool:
    try:
        pidfd = os.pidfd_open(int(pid))
    except OSError:
        return False
    try:
        if _pod_of(pid) != pod:  # of somebody else by now
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        process.has_ended(pidfd, limit_s=_LIMIT_S)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _pod_of(pid: str) -> str:
    """The pod that a process was told it works for; empty when it was not, or has gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read(_ENVIRON_BYTES).split(b"\0")
    except OSError:
        return ""
    return next((word.removeprefix(_WORD).decode("ascii", "replace") for word in words if word.startswith(_WORD)), "")
