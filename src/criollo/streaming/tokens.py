"""Tokens: the right to open one session, once and soon.

A token is all that stands between the streaming port and a container, so it cannot be guessed (256 bits), is good for one
connection, and dies within a minute. It is never logged.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from criollo.errors import Exhausted
from criollo.model.session import Session

LIFE_S: Final = 60.0
MAX_WAITING: Final = 1000
_BYTES: Final = 32


class Tokens:
    """Sessions that wait for their clients."""

    def __init__(
        self, *, life_s: float = LIFE_S, limit: int = MAX_WAITING, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._life_s, self._limit, self._clock = life_s, limit, clock
        self._waiting: dict[str, _Waiting] = {}  # in the order of their ends

    def issue(self, session: Session) -> str:
        """A new token for `session`, of letters, digits, `-` and `_`.

        Raises:
            Exhausted: as many wait as may.
        """
        self._drop_dead()
        if len(self._waiting) >= self._limit:
            raise Exhausted(
                f"cannot open a stream: {self._limit} wait for their clients already; connect to those, or try again in "
                f"{self._life_s:g} s"
            )
        token = secrets.token_urlsafe(_BYTES)
        self._waiting[token] = _Waiting(session, self._clock() + self._life_s)
        return token

    def take(self, token: str) -> Session | None:
        """The session of a token, which is used up by it; None for one that never was, was used or is too old."""
        self._drop_dead()
        waiting = self._waiting.pop(token, None)
        return waiting.session if waiting is not None else None

    def _drop_dead(self) -> None:
        now = self._clock()
        for token, waiting in list(self._waiting.items()):
            if waiting.ends > now:
                return
            del self._waiting[token]


class _Waiting(NamedTuple):
    session: Session
    ends: float
