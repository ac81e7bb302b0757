"""Turnstiles: who may ask a registry that has said it is asked too often."""

import threading

import pytest

from criollo.registry.connections import Limits
from criollo.registry.lifeline import Aborted, Lifeline
from criollo.registry.turnstile import Limited, Turnstile, Turnstiles

QUICK = Limits(limited_backoff_s=0.01, longest_wait_s=5)
PATIENCE_S = 30


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
