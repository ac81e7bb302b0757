"""What the pod verbs work with: the container verbs and the drivers of a pod."""

from pathlib import Path

from criollo.aio.jobs import Jobs
from criollo.aio.locks import KeyedLocks
from criollo.containers.context import Containers
from criollo.linux.cgroup import Hierarchies
from criollo.model.ids import PodId
from criollo.network.cni import Cni


class Pods:
    """The drivers under the pod verbs, and what is in progress. `uncollected` as in `Containers`."""

    def __init__(self, containers: Containers, *, network: Cni, hierarchies: Hierarchies) -> None:
        self.containers, self.network, self.hierarchies = containers, network, hierarchies
        self.tasks = containers.tasks
        self.state = containers.state
        self.default_sysctls: dict[str, str] = {}
        self.drop_infra = True
        self.pause_image = ""
        self.pause_command: tuple[str, ...] = ("/pause",)
        self.catatonit: Path | None = None
        self.log_dir = ""
        self.locks = KeyedLocks()
        self.runs: Jobs[PodId] = Jobs("run pod sandbox")
        self.stops: Jobs[None] = Jobs("stop pod sandbox")
        self.uncollected: set[str] = set()
