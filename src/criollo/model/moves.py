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


def may_become(kind: str, name: str, state: ContainerState | PodState, target: ContainerState | PodState) -> None:
    """Raise WrongState unless the table allows `state` to become `target`."""
    allowed = CONTAINER_MOVES[state] if isinstance(state, ContainerState) else POD_MOVES[state]
    if target not in allowed:
        sources = [
            str(source)
            for source, targets in (*CONTAINER_MOVES.items(), *POD_MOVES.items())
            if target in targets and type(source) is type(state)
        ]
        raise WrongState(kind, name, str(state), " or ".join(sources))
