"""workers.ahead: the same items in the same order, whoever makes them, and the same failure."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criollo.workers.ahead import ahead


def numbers(count: int, makers: list[int]) -> Iterator[int]:
    for number in range(count):
        makers.append(threading.get_ident())
        yield number


@given(count=st.integers(0, 40), answers=st.lists(st.booleans(), max_size=60))
def test_items_are_the_same_however_often_the_thread_comes_and_goes(count: int, answers: list[bool]) -> None:
    said = iter(answers)
    assert list(ahead(numbers(count, []), lambda: next(said, True))) == list(range(count))


def test_without_a_processor_to_spare_there_is_no_thread() -> None:
    makers: list[int] = []
    assert list(ahead(numbers(5, makers), lambda: False)) == list(range(5))
    assert set(makers) == {threading.get_ident()}


def test_with_one_to_spare_a_thread_makes_what_follows() -> None:
    makers: list[int] = []
    assert list(ahead(numbers(5, makers), lambda: True)) == list(range(5))
    assert makers[0] == threading.get_ident()
    assert threading.get_ident() not in makers[1:]


def test_thread_waits_when_it_is_a_few_items_ahead() -> None:
    made, far = [0], threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made[0] = number
            if number == 5:
                far.set()
            yield number

    taken = ahead(items(), lambda: True)
    assert (next(taken), next(taken)) == (0, 1)
    assert far.wait(60)
    assert made[0] <= 1 + 4  # three that wait to be taken, and one in its hands
    assert list(taken) == list(range(2, 100))


@pytest.mark.parametrize("spare", [False, True])
def test_failure_reaches_the_taker_after_what_came_before(spare: bool) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise ValueError("broken")

    taken = ahead(items(), lambda: spare)
    assert [next(taken) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(ValueError, match="broken"):
        next(taken)


def test_where_no_thread_can_be_started_it_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refused)
    makers: list[int] = []
    assert list(ahead(numbers(5, makers), lambda: True)) == list(range(5))
    assert set(makers) == {threading.get_ident()}
