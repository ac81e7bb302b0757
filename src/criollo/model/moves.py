"""Which state may follow which. Nobody else compares states to decide what is legal."""

from typing import Final

from criollo.errors import WrongState
from criollo.model.container import ContainerState
from criollo.model.pod import PodState

CONTAINER_MOVES: Final[dict[ContainerState, frozenset[ContainerState]]] = {
    ContainerState.CREATING: frozenset({ContainerState.CREATED, ContainerState.REMOVING}),
    ContainerState.CREATED: frozenset({ContainerState.RUNNING, ContainerState.EXITED, ContainerState.REMOVING}),
    ContainerState.RUNNING: frozenset({ContainerState.EXITED}),
    ContainerState.EXITED: frozenset({ContainerState.REMOVING}),
    ContainerState.REMOVING: frozenset(),
}

POD_MOVES: Final[dict[PodState, frozenset[PodState]]] = {
    PodState.CREATING: frozenset({PodState.READY, PodState.REMOVING}),
    PodState.READY: frozenset({PodState.NOTREADY, PodState.REMOVING}),
    PodState.NOTREADY: frozenset({PodState.REMOVING}),
    PodState.REMOVING: frozenset(),
}


def can_become(state: ContainerState | PodState, target: ContainerState | PodState) -> bool:
    """Whether the table allows `state` to become `target`; nothing becomes what it is."""
    allowed = CONTAINER_MOVES[state] if isinstance(state, ContainerState) else POD_MOVES[state]
    return target in allowed


def may_become(kind: str, name: str, state: ContainerState | PodState, target: ContainerState | PodState) -> None:
    """Raise WrongState, naming the states it needs, unless the table allows `state` to become `target`."""
    if not can_become(state, target):
        table = CONTAINER_MOVES if isinstance(state, ContainerState) else POD_MOVES
        needs = " or ".join(str(source) for source in table if can_become(source, target))
        raise WrongState(kind, name, str(state), needs)


def is_live(state: ContainerState) -> bool:
    """Whether a container in this state has a process, so that it can still exit."""
    return can_become(state, ContainerState.EXITED)
