"""The CRI's Signal enum and the kernel's numbers. The enum counts names in alphabetical order, the kernel does not."""

from typing import Final

from criollo.cri.pb import api_pb2 as pb
from criollo.errors import Invalid
from criollo.model.signals import parse_signal


def _kernel_number(name: str) -> int:
    """`SIGNAL_SIGRTMINPLUS3` → 37 with glibc's SIGRTMIN of 34."""
    word = name.removeprefix("SIGNAL_")
    word = word.replace("SIGRTMAXMINUS", "SIGRTMAX-").replace("SIGRTMINPLUS", "SIGRTMIN+")
    return parse_signal(word)


SIGNALS: Final[dict[int, int]] = {number: _kernel_number(name) for name, number in pb.Signal.items() if number}
"""CRI number → kernel number."""

_BACK: Final[dict[int, int]] = {kernel: number for number, kernel in reversed(SIGNALS.items())}


def kernel_signal(number: int, field: str) -> int:
    """The kernel's number for one of the CRI; 0 for SIGNAL_RUNTIME_DEFAULT."""
    if number and number not in SIGNALS:
        raise Invalid(field, number, "a number of the Signal enum")
    return SIGNALS.get(number, 0)


def cri_signal(kernel: int) -> int:
    """The CRI's number for one of the kernel; 0 where it has none. Of two names for one signal the first is taken."""
    return _BACK.get(kernel, 0)
