"""Trying again: several endpoints, several rounds, pauses between them.

A round asks each endpoint in order. An answer that settles it for a mirror (not found, not allowed, malformed) only takes the
mirror out of the list; from the registry itself, the last endpoint, it settles the matter. What may pass (`Retryable`) is
asked again after a pause; rounds that got further do not count, nor do those in which the registry only said that it is asked
too often: then the turnstile has the pause, and time is the limit.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from criollo.errors import CriolloError, Exhausted, HostFailed
from criollo.registry.blobs import Spoiled
from criollo.registry.connections import Limits, Retryable
from criollo.registry.endpoints import Endpoint
from criollo.registry.lifeline import Aborted, Lifeline
from criollo.registry.turnstile import Limited
from criollo.telemetry.log import get_logger

log = get_logger(__name__)

T = TypeVar("T")

# Progress that renews the patience; with less a peer could cut the connection at each byte for ever.
_WORTH_BYTES: Final = 1 << 20
# Ours to solve, not another endpoint's.
_FINAL: Final = (Aborted, HostFailed, Exhausted, Spoiled)


def persist(
    endpoints: Sequence[Endpoint],
    call: Callable[[Endpoint], T],
    *,
    limits: Limits,
    lifeline: Lifeline,
    done: Callable[[], int] = lambda: 0,
) -> T:
    """The first success of `call`; `done()` tells how far it got, in bytes, and so renews the patience.

    Raises:
        CriolloError: what the registry itself said last.
    """
    left = list(endpoints)
    rounds, reached, limited_since = 0, done(), 0.0
    while True:
        try:
            return _round(left, call)
        except Retryable as error:
            failure = error
        if isinstance(failure, Limited):
            limited_since = limited_since or time.monotonic()
            if failure.wait_s > limits.longest_wait_s or time.monotonic() - limited_since > limits.limited_s:
                raise failure
            lifeline.check()
            continue
        limited_since = 0.0
        rounds = 1 if done() - reached >= _WORTH_BYTES else rounds + 1
        reached = done()
        if rounds >= limits.rounds:
            raise failure
        lifeline.pause(_pause_s(rounds, failure.wait_s, limits))


def _round(left: list[Endpoint], call: Callable[[Endpoint], T]) -> T:
    """Ask each endpoint once; mirrors that cannot serve are taken out of `left`.

    Raises:
        Retryable: none served, and asking again may help; it is what the last one said.
    """
    last = left[-1]
    failure: Retryable | None = None
    for endpoint in tuple(left):
        try:
            return call(endpoint)
        except _FINAL:
            raise
        except Retryable as error:
            failure = error
            log.info("registry endpoint failed", endpoint=endpoint, mirror=endpoint.is_mirror, error=error)
        except CriolloError as error:
            if endpoint is last:
                raise
            left.remove(endpoint)
            log.info("mirror cannot serve", endpoint=endpoint, error=error)
    if failure is None:
        raise AssertionError("the last endpoint neither answered nor failed")
    raise failure


def _pause_s(rounds: int, asked_s: float, limits: Limits) -> float:
    own = limits.backoff_s * 2.0 ** (rounds - 1) * (1 + secrets.randbelow(1000) / 1000)
    return min(max(own, asked_s), limits.longest_wait_s)
