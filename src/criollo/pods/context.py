"""What the pod verbs work with: the container verbs and the drivers of a pod."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks
from criollo.containers.context import Containers
from criollo.linux.cgroup import Hierarchies
from criollo.model.ids import PodId
from criollo.network.cni import Cni
from criollo.pods.events import Events
from criollo.pods.sockets import Forwards

if TYPE_CHECKING:  # loaded where it is used: most nodes collect nothing, and map nothing themselves
    from criollo.pods.collected import Collected
    from criollo.pods.history import History
    from criollo.security.userns import NodeIds


class Pods:
    """The drivers under the pod verbs, and what is in progress. `uncollected_s` as in `Containers`."""

    uncollected_s: float = 120

    def __init__(self, containers: Containers, *, network: Cni, hierarchies: Hierarchies) -> None:
        self.containers, self.network, self.hierarchies = containers, network, hierarchies
        self.tasks = containers.tasks
        self.state = containers.state
        self.default_sysctls: dict[str, str] = {}
        self.userns: NodeIds | None = None  # the configuration has mappings, or limits of them
        self.drop_infra = True
        self.pause_image = ""
        self.pause_command: tuple[str, ...] = ("/pause",)
        self.catatonit: Path | None = None
        self.log_dir = ""
        self.locks = KeyedLocks()
        self.runs: Jobs[PodId] = Jobs("run pod sandbox")
        self.stops: Jobs[None] = Jobs("stop pod sandbox")
        self.removes: Jobs[None] = Jobs("remove pod sandbox")
        self.forwards = Forwards()
        self.events: Events | None = None  # where clients may follow them
        self.metric_groups: frozenset[str] = frozenset()  # beyond those that are always told
        self.collected: Collected | None = None  # where statistics are collected in the background
        self.remember: Callable[[], History] | None = None  # where the daemon remembers

    async def close(self) -> None:
        """Let what is half made come to its end, then stop it; before the containers' jobs are closed."""
        await self.runs.close(limit_s=5)
        await self.removes.close(limit_s=5)
        await self.stops.close(limit_s=5)
