"""What the container verbs work with: rows, drivers, node facts, and what is in progress."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from criollo.aio.background import Background
from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks
from criollo.aio.systemd import Systemd
from criollo.containers.additions import Additions
from criollo.containers.processes import FirstProcesses
from criollo.containers.sessions import Sessions
from criollo.containers.shape import Rules
from criollo.errors import NotFound
from criollo.images.context import Images
from criollo.linux.affinity import pin
from criollo.linux.cgroup import Driver, Hierarchies
from criollo.linux.namespaces import NamespaceKind, directory_of
from criollo.model.container import Device
from criollo.model.ids import ContainerId
from criollo.model.pod import Pod
from criollo.runtimes.base import Runtime
from criollo.runtimes.handlers import Handlers
from criollo.security.seccomp import Profiles
from criollo.specgen.cpus import parse
from criollo.specgen.host import HostFacts
from criollo.specgen.request import Defaults
from criollo.specgen.workloads import find
from criollo.state.records import State
from criollo.stats.collect import Collector
from criollo.storage.rootfs import RootStore
from criollo.storage.usages import Usages
from criollo.telemetry.log import get_logger
from criollo.workers.pool import Workers

if TYPE_CHECKING:  # only nodes that have it load it
    from criollo.containers.tunings import Tunings
    from criollo.security.apparmor import AppArmor
    from criollo.security.selinux import Labeller

log = get_logger(__name__)

TUNED = "tuned.json"  # in the run state: what of the node containers have changed (containers.tunings)
_MOST_BLOCKED = 1000  # pairs: pods choose names
_MOST_TOLD = 1000


class Places:
    """Where things of a container are; every name is its id."""

    def __init__(self, root: Path, runroot: Path, *, namespaces: Path) -> None:
        self.root, self.runroot, self.namespaces = root, runroot, namespaces
        self.bundles, self.pods, self.notifiers = runroot / "containers", runroot / "pods", runroot / "seccomp"

    def bundle(self, container_id: str) -> Path:
        """config.json, pid files; on a tmpfs, because conmon and the runtime fsync here."""
        return self.bundles / container_id

    def pod(self, pod_id: str) -> Path:
        return self.pods / pod_id

    def target_pids(self, container_id: str) -> Path:
        """The PID namespace of the container that this one debugs."""
        return directory_of(self.namespaces, NamespaceKind.PID) / container_id

    def notifier(self, container_id: str) -> Path:
        """Where a runtime hands over the seccomp listeners of a container."""
        return self.notifiers / container_id


class Containers:
    """The drivers under the container verbs.

    `tasks` owns the watchers. `ended[id]` is set when a container's exit is recorded. A container whose client went away
    before the answer is torn down unless it asks again within `uncollected_s`. A monitor that does not end `monitor_s` after
    its container is killed. The seccomp notifier ends a container that has been quiet for `notifier_quiet_s`.
    """

    uncollected_s: float = 120
    monitor_s: float = 10
    probe_s: float = 20
    notifier_quiet_s: float = 5

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
        self.usages = Usages(lambda container_id: self.roots.measure(container_id), tasks)
        self.host: HostFacts
        self.hierarchies = Hierarchies({}, None)
        self.units = Systemd()
        self.seccomp: Profiles
        self.apparmor: AppArmor | None = None  # the kernel has none
        self.selinux: Labeller | None = None  # likewise, or it is off in the configuration
        self.exits_dir = places.runroot / "exits"
        self.defaults_of: Callable[[str], Defaults]  # by handler
        self.rules = Rules()
        self.additions = Additions()
        self.cgroup_driver = Driver.CGROUPFS
        self.additional_devices: tuple[Device, ...] = ()
        self.allowed_devices: tuple[str, ...] = ()
        self.owns_devices = False  # they belong to the user that the request names
        self.absent_sources_to_reject: tuple[str, ...] = ()
        self.bind_mount_prefix = ""
        self.image_volume_mode = "mkdir"
        self.tunings: Tunings | None = None  # opened with the first container whose CPUs are to be quiet
        self.irqbalance_config = ""
        self.clock: Callable[[], int] = time.time_ns
        self.locks = KeyedLocks()
        self.creates: Jobs[ContainerId] = Jobs("create container")
        self.starts: Jobs[None] = Jobs("start container")
        self.stops: Jobs[None] = Jobs("stop container")
        self.removes: Jobs[None] = Jobs("remove container")
        self.grace_ends: dict[str, float] = {}
        self.grace_changed: dict[str, asyncio.Event] = {}
        self.ended: dict[str, asyncio.Event] = {}
        self.notifiers: dict[str, Callable[[], None]] = {}  # how to end that of a container
        self.blocked_calls: Counter[tuple[str, str]] = Counter()  # by container name and system call, for metrics
        self.sessions = Sessions()
        self.first_processes = FirstProcesses()
        self._told: set[str] = set()

    def defaults_for(self, pod: Pod) -> Defaults:
        """As `defaults_of` its handler; a workload that the pod switches on allows annotations besides."""
        defaults = self.defaults_of(pod.handler)
        workload = find(self.rules.workloads, pod.config.annotations)
        if workload is None or not workload.allowed_annotations:
            return defaults
        allowed = (*defaults.allowed_annotations, *workload.allowed_annotations)
        return msgspec.structs.replace(defaults, allowed_annotations=allowed)

    def now_after(self, earlier: Iterable[int]) -> int:
        """The time of day, and later than `earlier` whatever it was set to: of one name, kubelet takes the newest for the
        current one, and would make another for ever."""
        return max((self.clock(), *(each + 1 for each in earlier)))

    def pin_monitor(self, container_id: str, monitor_pid: int) -> None:
        """Keep a monitor off the CPUs of containers, once it has made its own: that does not follow."""
        if self.rules.infra_cpus:
            try:
                pin(monitor_pid, parse(self.rules.infra_cpus, "infra_ctr_cpuset"))
            except OSError as error:
                self.tell_once(f"monitors are not kept to infra_ctr_cpuset: {error.strerror}", container_id)

    def runtime_of(self, handler: str) -> Runtime:
        """The runtime that stops, watches and deletes what `handler` has made.

        A handler that has left the configuration since is stood in for by the default one: pids, cgroups and exit files
        are the same for all.
        """
        try:
            return self.handlers.get(handler)
        except NotFound:
            return self.handlers.get("")

    def count_blocked(self, name: str, call: str) -> None:
        """Count a system call that a container's filter refused."""
        if (name, call) in self.blocked_calls or len(self.blocked_calls) < _MOST_BLOCKED:
            self.blocked_calls[name, call] += 1

    async def close(self) -> None:
        """Let what is half made come to its end, then stop it; before the drivers are closed."""
        await self.creates.close(limit_s=5)
        await self.starts.close(limit_s=5)
        await self.removes.close(limit_s=5)
        await self.stops.close(limit_s=0)  # a grace period may be long; the next daemon is asked again
        self.additions.close()

    def tell_once(self, note: str, container_id: str) -> None:
        """Log a fact about this node that every container meets again, the first time only."""
        if note not in self._told:
            if len(self._told) >= _MOST_TOLD:  # somebody's names are in them: better told twice than kept for ever
                self._told.clear()
            self._told.add(note)
            log.warning(note, container=container_id)
