"""What the container verbs work with: rows, drivers, node facts, and what is in progress."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from criollo.aio.background import Background
from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks
from criollo.containers.processes import FirstProcesses
from criollo.containers.sessions import Sessions
from criollo.errors import NotFound
from criollo.images.context import Images
from criollo.linux.cgroup import Driver
from criollo.model.container import Device
from criollo.model.ids import ContainerId
from criollo.runtimes.base import Runtime
from criollo.runtimes.handlers import Handlers
from criollo.security.seccomp import Profiles
from criollo.specgen.host import HostFacts
from criollo.specgen.request import Defaults
from criollo.state.records import State
from criollo.stats.collect import Collector
from criollo.storage.rootfs import RootStore
from criollo.telemetry.log import get_logger
from criollo.workers.pool import Workers

log = get_logger(__name__)


class Places:
    """Where things of a container are; every name is its id."""

    def __init__(self, root: Path, runroot: Path, *, namespaces: Path) -> None:
        self.root, self.runroot, self.namespaces = root, runroot, namespaces
        self.bundles, self.pods = runroot / "containers", runroot / "pods"

    def bundle(self, container_id: str) -> Path:
        """config.json, pid files; on a tmpfs, because conmon and the runtime fsync here."""
        return self.bundles / container_id

    def pod(self, pod_id: str) -> Path:
        return self.pods / pod_id


class Containers:
    """The drivers under the container verbs.

    `tasks` owns the watchers. `ended[id]` is set when a container's exit is recorded. `uncollected` are containers whose
    client went away before the answer: they are not listed, and are torn down unless the client asks again within
    `uncollected_s`. A monitor that does not end `monitor_s` after its container is killed.
    """

    uncollected_s: float = 120
    monitor_s: float = 10

    def __init__(
        self,
        state: State,
        images: Images,
        *,
        roots: RootStore,
        handlers: Handlers,
        workers: Workers,
        places: Places,
        collector: Collector,
        tasks: Background,
    ) -> None:
        self.state, self.images, self.roots, self.handlers = state, images, roots, handlers
        self.workers, self.places, self.collector, self.tasks = workers, places, collector, tasks
        self.host: HostFacts
        self.seccomp: Profiles
        self.exits_dir = places.runroot / "exits"
        self.defaults_of: Callable[[str], Defaults]  # by handler
        self.cgroup_driver = Driver.CGROUPFS
        self.additional_devices: tuple[Device, ...] = ()
        self.absent_sources_to_reject: tuple[str, ...] = ()
        self.bind_mount_prefix = ""
        self.image_volume_mode = "mkdir"
        self.stop_floor_s: float = 0
        self.clock: Callable[[], int] = time.time_ns
        self.locks = KeyedLocks()
        self.creates: Jobs[ContainerId] = Jobs("create container")
        self.starts: Jobs[None] = Jobs("start container")
        self.stops: Jobs[None] = Jobs("stop container")
        self.removes: Jobs[None] = Jobs("remove container")
        self.grace_ends: dict[str, float] = {}
        self.grace_changed: dict[str, asyncio.Event] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.uncollected: set[str] = set()
        self.sessions = Sessions()
        self.first_processes = FirstProcesses()
        self._told: set[str] = set()

    def runtime_of(self, handler: str) -> Runtime:
        """The runtime that stops, watches and deletes what `handler` has made.

        A handler that has left the configuration since is stood in for by the default one: pids, cgroups and exit files
        are the same for all.
        """
        try:
            return self.handlers.get(handler)
        except NotFound:
            return self.handlers.get("")

    async def close(self) -> None:
        """Let what is half made come to its end, then stop it; before the drivers are closed."""
        await self.creates.close(limit_s=5)
        await self.starts.close(limit_s=5)
        await self.removes.close(limit_s=5)
        await self.stops.close(limit_s=0)  # a grace period may be long; the next daemon is asked again

    def tell_once(self, note: str, container_id: str) -> None:
        """Log a fact about this node that every container meets again, the first time only."""
        if note not in self._told:
            self._told.add(note)
            log.warning(note, container=container_id)
