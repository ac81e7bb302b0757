"""The tables of moves: every life begins at CREATING and can end at REMOVING."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from criollo.errors import WrongState
from criollo.model.container import ContainerState
from criollo.model.moves import CONTAINER_MOVES, POD_MOVES, can_become, is_live, may_become
from criollo.model.pod import PodState

C, P = ContainerState, PodState


def test_the_tables_know_every_state() -> None:
    assert set(CONTAINER_MOVES) == set(C)
    assert set(POD_MOVES) == set(P)


@pytest.mark.parametrize(
    ("state", "target"),
    [(C.CREATED, C.RUNNING), (C.RUNNING, C.EXITED), (C.CREATED, C.EXITED), (P.CREATING, P.READY), (P.READY, P.NOTREADY)],
)
def test_the_way_forward_is_open(state: C | P, target: C | P) -> None:
    may_become("thing", "x", state, target)


@pytest.mark.parametrize(
    ("state", "target", "text"),
    [
        (C.EXITED, C.RUNNING, "container x is EXITED; this needs CREATED"),
        (C.RUNNING, C.RUNNING, "container x is RUNNING; this needs CREATED"),
        (C.REMOVING, C.EXITED, "container x is REMOVING; this needs CREATED or RUNNING"),
        (C.RUNNING, C.REMOVING, "container x is RUNNING; this needs CREATING or CREATED or EXITED"),
        (P.NOTREADY, P.READY, "container x is NOTREADY; this needs CREATING"),
    ],
)
def test_a_move_that_is_none_is_refused_with_the_states_it_needs(state: C | P, target: C | P, text: str) -> None:
    with pytest.raises(WrongState) as caught:
        may_become("container", "x", state, target)
    assert str(caught.value) == text


def test_what_lives_can_still_exit() -> None:
    assert {state for state in C if is_live(state)} == {C.CREATED, C.RUNNING}


class Life(RuleBasedStateMachine):
    """Any walk through the table."""

    def __init__(self) -> None:
        super().__init__()
        self.walked = [C.CREATING]

    @rule(to=st.sampled_from(C))
    def move(self, to: ContainerState) -> None:
        if can_become(self.walked[-1], to):
            may_become("container", "x", self.walked[-1], to)
            self.walked.append(to)
        else:
            with pytest.raises(WrongState):
                may_become("container", "x", self.walked[-1], to)

    @invariant()
    def no_state_comes_twice(self) -> None:
        assert len(set(self.walked)) == len(self.walked)

    @invariant()
    def who_ran_has_exited_before_it_goes(self) -> None:
        if C.RUNNING in self.walked and C.REMOVING in self.walked:
            assert C.EXITED in self.walked

    @invariant()
    def the_end_can_be_reached(self) -> None:
        reached = {self.walked[-1]}
        for _ in C:
            reached |= {target for state in reached for target in CONTAINER_MOVES[state]}
        assert C.REMOVING in reached


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=15, deadline=None)
TestLife = Life.TestCase
