"""What a peer may do for nothing, and how often."""

import pytest

from criollo.wire.http2_floods import IDLE_FRAMES, IDLE_FRAMES_IN_S, RESETS, RESETS_IN_S, Floods
from criollo.wire.http2_frames import ErrorCode, Fault


def test_resets_are_counted_over_a_moving_time() -> None:
    floods = Floods()
    for _ in range(RESETS - 1):
        floods.reset(0)
    floods.reset(RESETS_IN_S)  # the first ones no longer count against it
    for _ in range(RESETS - 2):
        floods.reset(RESETS_IN_S)
    with pytest.raises(Fault) as caught:
        floods.reset(RESETS_IN_S)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


def test_idle_frames_are_counted_anew_after_a_time() -> None:
    floods = Floods()
    for turn in range(3):
        for _ in range(IDLE_FRAMES):
            floods.idle(turn * IDLE_FRAMES_IN_S)
    with pytest.raises(Fault):
        floods.idle(2 * IDLE_FRAMES_IN_S)


def test_work_pays_for_idle_frames_that_came_and_not_for_those_to_come() -> None:
    floods = Floods()
    for _ in range(IDLE_FRAMES):
        floods.worked()
        floods.idle(0)
        floods.idle(0)
    for _ in range(IDLE_FRAMES):
        floods.worked()
    for _ in range(IDLE_FRAMES):
        floods.idle(0)
    with pytest.raises(Fault):
        floods.idle(0)
