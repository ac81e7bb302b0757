"""Windows and the budget for frames that cost us more than the peer."""

import pytest

from criollo.wire import spdy_frames as frames
from criollo.wire.spdy_frames import Broken
from criollo.wire.spdy_windows import Budget, Overflow, Window


def test_room_is_given_back_when_half_of_it_is_used() -> None:
    window = Window(100, 0)
    window.room_in -= 60
    assert window.used_up(49) == 0
    assert window.used_up(1) == 50
    assert window.give_back() == 50
    assert (window.room_in, window.owed) == (90, 0)


def test_window_may_sink_below_zero_and_not_rise_above_its_limit() -> None:
    window = Window(100, 100)
    window.widen_out(-300)
    assert window.room_out == -200
    window.widen_out(frames.MAX_WINDOW + 200)
    with pytest.raises(Overflow):
        window.widen_out(1)


def test_budget_is_for_a_burst_and_comes_back_with_time() -> None:
    budget = Budget()
    for _ in range(1000):
        budget.charge(5.0)
    with pytest.raises(Broken):
        budget.charge(5.0)
    budget.charge(5.03)


def test_a_ping_each_second_goes_on_for_ever() -> None:
    budget = Budget()
    for second in range(10000):
        budget.charge(float(second))
