"""Not asking faster than a registry allows: one turnstile per host and credential, shared by all pulls.

A 429 closes it for as long as the registry says. Then one request goes through alone; each answer that is no refusal lets one
more at a time, until nothing holds anybody back. So a storm of parallel pulls costs the registry the requests that were on
their way when it first refused, and one for each time that it refuses again.
"""

import os
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from criollo.registry.connections import Limits, Retryable
from criollo.registry.lifeline import Lifeline

_OPEN: Final = 16  # as many at a time as there are transfer threads, and more
_MAX_KNOWN: Final = 256
_LONGEST_DOUBLING: Final = 6


class Limited(Retryable):
    """The registry wants fewer requests; `wait_s` is how long it wants to see none."""


class Passage:
    """One request on its way through; tell it `refused` when the answer is a 429."""

    def __init__(self) -> None:
        self.wait_s: float | None = None

    def refused(self, wait_s: float) -> None:
        """The answer was a refusal; `wait_s` of 0: it does not say for how long."""
        self.wait_s = wait_s


class Turnstile:
    """See the module; used by transfer threads."""

    def __init__(self, host: str, limits: Limits) -> None:
        self._host, self._limits = host, limits
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._places, self._inside, self._refusals = _OPEN, 0, 0
        self._waiting: deque[int] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether it may be forgotten."""
        with self._lock:
            return not self._inside and not self._waiting and self._places >= _OPEN

    @contextmanager
    def passing(self, lifeline: Lifeline, *, may_wait: bool = True) -> Iterator[Passage]:
        """Wait for a turn and hold it for the block: until the answer's status is known.

        Raises:
            Limited: it is closed for longer than the limits allow to wait, or one may not wait at all.
            Aborted: the transfer was ended.
        """
        self._enter(lifeline, may_wait=may_wait)
        passage = Passage()
        try:
            yield passage
        finally:
            self._leave(passage)

    def _enter(self, lifeline: Lifeline, *, may_wait: bool) -> None:
        try:
            self._wait(lifeline, may_wait=may_wait)
        except BaseException:
            with self._lock:
                self._tell()  # it may have been this one's turn: without that the others would wait for nobody
            raise

    def _wait(self, lifeline: Lifeline, *, may_wait: bool) -> None:
        while True:
            with self._lock:
                closed_s = self._closed_until - time.monotonic()
                if closed_s <= 0 and self._inside < self._places:
                    self._inside += 1
                    return
                if closed_s > 0 and (not may_wait or closed_s > self._limits.longest_wait_s):
                    raise self._limited(closed_s)
                freed = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if closed_s <= 0 else -1
                if freed >= 0:
                    self._waiting.append(freed)
            if freed < 0:
                lifeline.pause(closed_s)
                continue
            try:
                lifeline.wait_readable(freed)
            finally:
                with self._lock:
                    if freed in self._waiting:
                        self._waiting.remove(freed)
                    os.close(freed)

    def _leave(self, passage: Passage) -> None:
        with self._lock:
            self._inside -= 1
            if passage.wait_s is None:
                self._refusals = 0
                self._places = min(self._places + 1, _OPEN)
            else:
                self._close(passage.wait_s)
            self._tell()

    def _tell(self) -> None:
        """As many of those who wait as there are places, that they may try. Each enters, waits on or tells the next."""
        for _ in range(min(self._places - self._inside, len(self._waiting))):
            os.eventfd_write(self._waiting.popleft(), 1)

    def _close(self, asked_s: float) -> None:
        now = time.monotonic()
        if now >= self._closed_until:  # else it is another of those that were on their way
            self._refusals += 1
        doubled = 2.0 ** min(self._refusals - 1, _LONGEST_DOUBLING)
        own = min(self._limits.limited_backoff_s * doubled * (1 + secrets.randbelow(1000) / 1000), self._limits.longest_wait_s)
        wait_s = min(max(asked_s, own), self._limits.longest_closed_s)
        self._closed_until = max(self._closed_until, now + wait_s)
        self._places = 1

    def _limited(self, closed_s: float) -> Limited:
        return Limited(
            f"registry {self._host} allows no more requests for {closed_s:.0f} s; wait, or log in for a higher limit",
            wait_s=closed_s,
        )


class Turnstiles:
    """One for each host and credential that was asked lately."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, Turnstile] = OrderedDict()

    def of(self, host: str, credential: Hashable) -> Turnstile:
        """The turnstile in front of `host` for whoever shows this credential."""
        key = (host, credential)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = Turnstile(host, self._limits)
                self._forget_idle(key)
            self._known.move_to_end(key)
            return found

    def _forget_idle(self, but: Hashable) -> None:
        for key in list(self._known) if len(self._known) > _MAX_KNOWN else ():
            if key != but and self._known[key].is_idle:
                del self._known[key]
                return
