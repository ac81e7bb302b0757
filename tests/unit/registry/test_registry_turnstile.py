"""Turnstiles: who may ask a registry that has said it is asked too often."""

import contextlib
import os
import threading

import pytest
from support.daemon import wait_for
from support.waiting import PATIENCE_S

from criollo.registry.connections import Limits
from criollo.registry.lifeline import Aborted, Lifeline
from criollo.registry.turnstile import Limited, Turnstile, Turnstiles

QUICK = Limits(limited_backoff_s=0.01, longest_wait_s=5)


@pytest.fixture
def lifeline():
    with Lifeline() as held:
        yield held


def ask(turnstile, lifeline, *, refused_for=None, may_wait=True):
    with turnstile.passing(lifeline, may_wait=may_wait) as passage:
        if refused_for is not None:
            passage.refused(refused_for)


def test_an_open_one_holds_nobody(lifeline):
    turnstile = Turnstile("r.example", QUICK)
    for _ in range(100):
        ask(turnstile, lifeline, may_wait=False)
    assert turnstile.is_idle


def test_a_refusal_closes_it_for_whoever_may_not_wait(lifeline):
    turnstile = Turnstile("r.example", QUICK)
    ask(turnstile, lifeline, refused_for=3)
    with pytest.raises(Limited, match=r"r\.example allows no more requests for [23] s"):
        ask(turnstile, lifeline, may_wait=False)


def test_a_refusal_longer_than_the_limit_is_an_answer(lifeline):
    turnstile = Turnstile("r.example", QUICK)
    ask(turnstile, lifeline, refused_for=3600)
    with pytest.raises(Limited) as caught:
        ask(turnstile, lifeline)
    assert 290 < caught.value.wait_s <= QUICK.longest_closed_s


def test_a_wait_ends_with_the_transfer(lifeline):
    turnstile = Turnstile("r.example", QUICK)
    ask(turnstile, lifeline, refused_for=4)
    lifeline.abort()
    with pytest.raises(Aborted):
        ask(turnstile, lifeline)


def test_after_a_refusal_they_go_through_one_by_one_and_then_freely():
    turnstile, most, inside, lock = Turnstile("r.example", QUICK), [], [], threading.Lock()
    with Lifeline() as held:
        ask(turnstile, held, refused_for=0)

    def work():
        with Lifeline() as held, turnstile.passing(held):
            with lock:
                inside.append(1)
                most.append(len(inside))
            with lock:
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(most) == 20
    assert most[0] == 1
    assert turnstile.is_idle


def test_a_storm_costs_one_request_for_each_further_refusal():
    """Ten threads and a host that refuses the next three after the first: four refusals, not forty."""
    turnstile, lock, refusals, served = Turnstile("r.example", QUICK), threading.Lock(), [], []
    with Lifeline() as held:
        ask(turnstile, held, refused_for=0)

    def work():
        with Lifeline() as held:
            while True:
                with turnstile.passing(held) as passage, lock:
                    if len(refusals) >= 3:
                        served.append(1)
                        return
                    refusals.append(1)
                    passage.refused(0)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert (len(refusals), len(served)) == (3, 10)


def test_hosts_and_credentials_do_not_hold_each_other():
    turnstiles = Turnstiles(QUICK)
    assert turnstiles.of("a", None) is turnstiles.of("a", None)
    assert turnstiles.of("a", None) is not turnstiles.of("a", "someone")
    assert turnstiles.of("a", None) is not turnstiles.of("b", None)


def test_idle_ones_are_forgotten_and_closed_ones_are_not(lifeline):
    turnstiles = Turnstiles(QUICK)
    closed = turnstiles.of("closed", None)
    ask(closed, lifeline, refused_for=4)
    for at in range(1000):
        turnstiles.of(f"host{at}", None)
    assert turnstiles.of("closed", None) is closed


# Nobody who waits is forgotten ----------------------------------------------------------------------------------------


class Slow(Lifeline):
    """One whose pauses last until the test says so."""

    def __init__(self):
        super().__init__()
        self.is_pausing, self.bell = threading.Event(), os.eventfd(0)

    def __exit__(self, *error):
        super().__exit__(*error)
        os.close(self.bell)

    def pause(self, seconds):
        self.is_pausing.set()
        self.wait_readable(self.bell)


class Doomed(Lifeline):
    """One that is ended at the moment at which it is told that it may go on."""

    def wait_readable(self, fd):
        super().wait_readable(fd)
        raise Aborted("the transfer was ended")


class Queue:
    """Threads that want through a turnstile, in the order in which they came; `ended` says how it ended for each."""

    def __init__(self, turnstile):
        self.turnstile, self.ended, self._threads = turnstile, {}, []

    def join(self, name, lifeline):
        """One more waits at the turnstile when this returns."""
        waiting = len(self.turnstile._waiting)

        def work():
            with lifeline:
                try:
                    ask(self.turnstile, lifeline)
                except (Aborted, Limited) as error:
                    self.ended[name] = type(error)
                else:
                    self.ended[name] = None

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()
        wait_for(lambda: len(self.turnstile._waiting) == waiting + 1)
        return lifeline

    def wait(self):
        for thread in self._threads:
            thread.join(PATIENCE_S)
        return self.ended


@contextlib.contextmanager
def only_one_at_a_time(lifeline):
    """A turnstile through which one goes at a time, and which that one holds; the block's end is its answer."""
    turnstile = Turnstile("r.example", QUICK)
    ask(turnstile, lifeline, refused_for=0)
    with turnstile.passing(lifeline) as passage:
        yield turnstile, passage


def test_all_who_wait_hear_of_a_refusal_that_is_too_long_to_wait_for(lifeline):
    with only_one_at_a_time(lifeline) as (turnstile, passage):
        queue = Queue(turnstile)
        for name in "abc":
            queue.join(name, Lifeline())
        passage.refused(3600)
    assert queue.wait() == dict.fromkeys("abc", Limited)


def test_who_sleeps_before_its_turn_and_ends_passes_the_turn_on(lifeline):
    with only_one_at_a_time(lifeline) as (turnstile, passage):
        queue = Queue(turnstile)
        first, second = queue.join("first", Slow()), queue.join("second", Slow())
        turnstile._limits = Limits(longest_wait_s=3600)
        passage.refused(200)
    assert first.is_pausing.wait(PATIENCE_S)
    first.abort()
    assert second.is_pausing.wait(PATIENCE_S)
    turnstile._closed_until = 0.0
    os.eventfd_write(second.bell, 1)
    assert queue.wait() == {"first": Aborted, "second": None}


def test_who_ends_at_the_moment_of_its_turn_passes_it_on(lifeline):
    with only_one_at_a_time(lifeline) as (turnstile, passage):
        queue = Queue(turnstile)
        queue.join("first", Doomed())
        queue.join("second", Lifeline())
        passage.refused(0)  # else there would be two places afterwards
    assert queue.wait() == {"first": Aborted, "second": None}
