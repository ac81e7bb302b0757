"""What an iterator gives, made a few steps ahead by a thread, while there are processors to spare.

A layer is unpacked by one thread, because that costs least; with one layer left it is also the only one that works. Then a
second thread reads, decompresses and hashes the next pieces while this one writes files: a twentieth more work, done in a
sixth to a third less time.
"""

import _thread  # not threading, which every worker would carry along
from _queue import SimpleQueue  # nor queue, which brings it
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

T = TypeVar("T")

_STACK_BYTES: Final = 1 << 20
_AHEAD: Final = 3  # pieces; fewer, and each waits for the scheduler where others want the processors too


def ahead(items: Iterator[T], has_spare: Callable[[], bool]) -> Iterator[T]:
    """The same items; those after a moment when `has_spare()` are made in a thread, until it says otherwise.

    Whoever stops in the middle must leave the process soon: the thread may wait for `items`.
    """
    for item in items:
        yield item
        del item  # a piece that nobody needs any more is memory
        if has_spare():
            yield from _from_thread(items, has_spare)


def _from_thread(items: Iterator[T], has_spare: Callable[[], bool]) -> Iterator[T]:
    """Items until they end or nobody has a processor to spare; the rest is left to the caller."""
    made: SimpleQueue[T | _End] = SimpleQueue()
    room: SimpleQueue[None] = SimpleQueue()

    def make() -> None:
        failure: BaseException | None = None
        try:
            for item in items:
                made.put(item)
                del item
                room.get()
                if not has_spare():
                    break
        except BaseException as error:  # handed over to the taker
            failure = error
        made.put(_End(failure))

    for _ in range(_AHEAD):
        room.put(None)
    _thread.stack_size(_STACK_BYTES)
    try:
        _thread.start_new_thread(make, ())
    except RuntimeError:
        return  # no thread to be had: then without
    while not isinstance(item := made.get(), _End):
        room.put(None)
        yield item
        del item
    if item.failure is not None:
        raise item.failure


class _End(NamedTuple):
    failure: BaseException | None
