"""sd_notify: tell systemd that we are ready, stopping, alive. Source: sd_notify(3)."""

import contextlib
import os
import socket


def notify(message: str) -> None:
    """Send e.g. "READY=1"; without systemd nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect("\0" + address[1:] if address[0] == "@" else address)
        out.send(message.encode())


def watchdog_s() -> float:
    """How often systemd wants to hear "WATCHDOG=1": half its limit; 0 when it does not."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isascii() and usec.isdecimal() else 0.0
