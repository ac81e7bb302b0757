"""A profile of the daemon by samples: which calls its threads were in, as lines `outer;inner;innermost count`.

That is the folded form that flame graphs are drawn from. It costs some 0.1 ms a sample, 100 times a second, while it runs.
"""

import sys
import threading
import time
from collections import Counter
from types import FrameType
from typing import Final

EVERY_S: Final = 0.01
_DEPTH: Final = 64
_STACKS: Final = 20_000  # different ones; further ones are counted together
_OTHERS: Final = "(other stacks)"
_IDLE: Final = frozenset(  # where a thread does nothing but wait
    {
        ("selectors", "select"),
        ("threading", "wait"),
        ("threading", "_wait_for_tstate_lock"),
        ("concurrent.futures.thread", "_worker"),
    }
)


class Sampler:
    """Counts stacks until it is stopped. `run` is for a thread of its own."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._counts: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._samples = self._waiting = 0
        self._began = time.monotonic()

    def run(self) -> None:
        """Take samples until `stop`."""
        while not self._stopped.wait(self._every_s):
            self.sample()

    def stop(self) -> None:
        """`run` returns within the time of one sample."""
        self._stopped.set()

    def sample(self) -> None:
        """Look at all threads but this one."""
        self._samples += 1
        for ident, frame in sys._current_frames().items():
            if ident == threading.get_ident():
                continue
            if _is_idle(frame):
                self._waiting += 1
                continue
            stack = _folded(frame)
            self._counts[stack if stack in self._counts or len(self._counts) < _STACKS else _OTHERS] += 1

    def text(self) -> str:
        """The profile so far, the most frequent stacks first."""
        head = (
            f"# profile by samples: {self._samples} in {time.monotonic() - self._began:.1f} s, "
            f"{sum(self._counts.values())} stacks at work, {self._waiting} that waited are left out"
        )
        return "\n".join([head, *(f"{stack} {count}" for stack, count in self._counts.most_common()), ""])


def _is_idle(frame: FrameType) -> bool:
    return (str(frame.f_globals.get("__name__", "")), frame.f_code.co_name) in _IDLE


def _folded(frame: FrameType | None) -> str:
    names: list[str] = []
    while frame is not None and len(names) < _DEPTH:
        names.append(f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(names))
