"""Handler name → runtime, with what each said of itself at start."""

import asyncio
from collections.abc import Mapping

from criollo.errors import CriolloError, NotFound, Unavailable
from criollo.runtimes.base import Probe, Runtime
from criollo.telemetry.log import get_logger

log = get_logger(__name__)


class Handlers:
    """The handlers that work on this node. Made by `open_handlers`; `close` when no runtime is called any more."""

    def __init__(self, runtimes: Mapping[str, Runtime], default: str, probes: Mapping[str, Probe]) -> None:
        self._runtimes, self.default, self.probes = dict(runtimes), default, dict(probes)
        self._retired: list[Runtime] = []

    def get(self, name: str) -> Runtime:
        """The runtime of a handler; the empty name is the default's.

        Raises:
            NotFound: no such handler.
        """
        try:
            return self._runtimes[name or self.default]
        except KeyError:
            raise NotFound("runtime handler", name, f"this node has {', '.join(sorted(self._runtimes))}") from None

    def names(self) -> list[str]:
        return sorted(self._runtimes)

    def become(self, others: "Handlers") -> None:
        """Work with others from now on. What still runs with the old ones may go on: they are closed at the end."""
        self._retired += self._runtimes.values()
        self._runtimes, self.default, self.probes = others._runtimes, others.default, others.probes

    def close(self) -> None:
        for runtime in (*self._runtimes.values(), *self._retired):
            runtime.close()


async def open_handlers(candidates: Mapping[str, Runtime], default: str) -> Handlers:
    """Ask every candidate's program for its version at once; one that does not work is dropped with a warning.

    Raises:
        NotFound: the default handler is not among the candidates.
        Unavailable: the default handler's program does not work.
    """
    if default not in candidates:
        raise NotFound("default runtime handler", default, f"the configuration has {', '.join(sorted(candidates)) or 'none'}")
    found: dict[str, Probe] = {}
    broken: dict[str, CriolloError] = {}

    async def probe(name: str, runtime: Runtime) -> None:
        try:
            found[name] = await runtime.probe()
        except CriolloError as error:
            broken[name] = error

    async with asyncio.TaskGroup() as group:
        for name, runtime in candidates.items():
            group.create_task(probe(name, runtime))
    if default in broken:
        raise Unavailable(f"default runtime handler {default} does not work: {broken[default]}") from broken[default]
    for name, error in broken.items():
        log.warning("runtime handler dropped: its program does not work", handler=name, error=error)
    for name, answer in found.items():
        if answer.warning:
            log.warning("runtime has published holes", handler=name, advice=answer.warning)
    return Handlers({name: candidates[name] for name in candidates if name in found}, default, found)
