"""Signals by name. An unknown name falls back to SIGTERM: an image author's typo must not keep a container from running."""

import re
import signal
from typing import Final

_NAMES: Final = {each.name: int(each) for each in signal.Signals}
_ALIASES: Final = {"SIGCLD": int(signal.SIGCHLD), "SIGIOT": int(signal.SIGABRT), "SIGPOLL": int(signal.SIGIO), "SIGSTKFLT": 16}
_REALTIME: Final = re.compile(r"SIGRT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")


def signal_name(number: int) -> str:
    """ "SIGINT", "SIGRTMIN+3": the name of a signal, its number where it has none."""
    if int(signal.SIGRTMIN) < number < int(signal.SIGRTMAX):
        return f"SIGRTMIN+{number - int(signal.SIGRTMIN)}"
    return next((name for name, each in (_NAMES | _ALIASES).items() if each == number), str(number))


def parse_signal(text: str, default: int = int(signal.SIGTERM)) -> int:
    """The number of "SIGINT", "INT", "2", "SIGRTMIN+3"; `default` for anything else."""
    if text.isascii() and text.isdecimal() and 0 < int(text[:4]) <= int(signal.SIGRTMAX):
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    if name in _NAMES or name in _ALIASES:
        return _NAMES.get(name) or _ALIASES[name]
    if match := _REALTIME.fullmatch(name):
        start = int(signal.SIGRTMIN) if match[1] == "MIN" else int(signal.SIGRTMAX)
        offset = int(match[3] or 0) * (-1 if match[2] == "-" else 1)
        if int(signal.SIGRTMIN) <= start + offset <= int(signal.SIGRTMAX):
            return start + offset
    return default
