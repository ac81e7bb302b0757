"""What clients have open in running containers: commands and attached streams, to be ended with their container.

Commands may be started during a stop's grace time, not any more once the kill has come. A command in a PID namespace of the
container dies with its first process; one in the pod's or the host's would live on, so it is told to end.
"""

import contextlib
from collections.abc import Callable, Iterator

from criollo.errors import WrongState


class Sessions:
    """By container. Each entry is a call that says: the container has ended, or is being killed."""

    def __init__(self) -> None:
        self._open: dict[str, list[Callable[[], None]]] = {}
        self._killing: set[str] = set()

    def check(self, container_id: str) -> None:
        """Raises WrongState when the container is being killed."""
        if container_id in self._killing:
            raise WrongState("container", container_id, "being killed", "one that goes on")

    @contextlib.contextmanager
    def open(self, container_id: str, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called, perhaps more than once, while the block runs.

        Raises:
            WrongState: the container is being killed.
        """
        self.check(container_id)
        ends = self._open.setdefault(container_id, [])
        ends.append(end)
        try:
            yield
        finally:
            ends.remove(end)
            if not ends:
                self._open.pop(container_id, None)

    def end(self, container_id: str) -> None:
        """Tell all that are open in a container to end."""
        for end in tuple(self._open.get(container_id, ())):
            end()

    @contextlib.contextmanager
    def killing(self, container_id: str) -> Iterator[None]:
        """End what is open, and let nothing be opened inside the block."""
        self._killing.add(container_id)
        try:
            self.end(container_id)
            yield
        finally:
            self._killing.discard(container_id)
