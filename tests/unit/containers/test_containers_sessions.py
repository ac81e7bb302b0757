"""Sessions end with their container, and none begins while it is being killed."""

import contextlib
from functools import partial

import pytest

from criollo.containers.sessions import Sessions
from criollo.errors import WrongState


def test_the_end_of_a_container_is_told_to_its_own_sessions_only() -> None:
    sessions = Sessions()
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        for container, word in (("a", "a1"), ("a", "a2"), ("b", "b")):
            stack.enter_context(sessions.open(container, partial(told.append, word)))
        sessions.end("a")
    assert told == ["a1", "a2"]
    sessions.end("a")
    sessions.end("nonesuch")
    assert told == ["a1", "a2"]


def test_a_kill_ends_sessions_and_refuses_new_ones() -> None:
    sessions = Sessions()
    told: list[str] = []
    with sessions.open("a", lambda: told.append("a")), sessions.killing("a"):
        assert told == ["a"]
        with pytest.raises(WrongState, match="container a is being killed"), sessions.open("a", lambda: None):
            pass
        sessions.check("b")
    sessions.check("a")


def test_the_same_call_may_be_open_twice() -> None:
    sessions = Sessions()
    told: list[str] = []

    def end() -> None:
        told.append("ended")

    with sessions.open("a", end):
        with sessions.open("a", end):
            pass
        sessions.end("a")
    assert told == ["ended"]
