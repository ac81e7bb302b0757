"""containers.tuning: CPUs made quiet before a start and put back after an end, in trees of plain files."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from criollo.aio import threads
from criollo.containers import irqbalance
from criollo.containers.context import TUNED, Containers
from criollo.containers.tuning import sweep, tune, unbalance_ended, untune
from criollo.errors import HostFailed, Unsupported
from criollo.linux.cgroup import Hierarchies
from criollo.model.container import Container, Tuning

ID = "c" * 64
CPUS = "sys/devices/system/cpu"


class Node:
    """A node of four CPUs, its cgroups, and a daemon's view of them."""

    def __init__(self, root: Path, *, unified: bool = False) -> None:
        self.root, self.told = root, list[frozenset[int]]()
        self.file("proc/irq/default_smp_affinity", "f")
        self.file("etc/irqbalance", "A=1\n")
        for cpu in range(4):
            self.file(f"{CPUS}/cpu{cpu}/power/pm_qos_resume_latency_us", "0")
            self.file(f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor", "powersave")
            self.file(f"{CPUS}/cpu{cpu}/cpufreq/scaling_available_governors", "performance powersave")
        for place in ("", "/pod", "/pod/crio"):
            self.file(f"cgroup{place}/cpuset.sched_load_balance", "1")
            self.file(f"cgroup{place}/cpuset.cpus.exclusive", "")
            self.file(f"cgroup{place}/cpuset.cpus.partition", "member")
        self.file("cgroup/pod/crio/container/cpuset.sched_load_balance", "1")
        cgroup = root / "cgroup"
        hierarchies = Hierarchies({}, cgroup) if unified else Hierarchies({"cpuset": cgroup}, None)
        self.rows: list[Any] = []
        self.containers = cast(
            Containers,
            SimpleNamespace(
                hierarchies=hierarchies,
                tunings=None,
                irqbalance_config="/etc/irqbalance",
                places=SimpleNamespace(runroot=root),
                state=SimpleNamespace(pods={"p": SimpleNamespace(cgroup_parent="/pod")}, containers=self.rows),
                runtime_of=lambda handler: SimpleNamespace(cgroup=lambda parent, container_id: f"{parent}/crio"),
            ),
        )

    def file(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.root / name).read_text().strip()

    def of_cpus(self, name: str) -> list[str]:
        return [self.read(f"{CPUS}/cpu{cpu}/{name}") for cpu in range(4)]

    def seen(self) -> dict[str, str]:
        return {str(path): path.read_text().strip() for path in self.root.rglob("*") if path.is_file()}

    def start(self, tuning: Tuning | None) -> None:
        asyncio.run(tune(self.containers, row(tuning), root=str(self.root)))

    def end(self, tuning: Tuning | None) -> None:
        asyncio.run(untune(self.containers, row(tuning)))


def row(tuning: Tuning | None, *, running: bool = True) -> Container:
    return cast(Container, SimpleNamespace(id=ID, pod_id="p", handler="", tuning=tuning, is_running=running))


@pytest.fixture(params=[False, True], ids=["v1", "v2"])
def node(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node(tmp_path, unified=request.param)

    async def rebalance(config: str, banned: frozenset[int]) -> None:
        made.told.append(banned)

    monkeypatch.setattr(irqbalance, "rebalance", rebalance)
    yield made
    threads.close()


EVERYTHING = Tuning(cpus="2-3", isolated=True, quiet="3", latency="n/a", governor="performance")


def test_the_cpus_are_tuned_for_the_time_of_the_container(node: Node) -> None:
    before = node.seen()
    node.start(EVERYTHING)
    assert node.read("proc/irq/default_smp_affinity") == "00000007"
    assert node.read("etc/irqbalance").endswith('IRQBALANCE_BANNED_CPUS="00000008"')
    assert node.of_cpus("power/pm_qos_resume_latency_us") == ["0", "0", "n/a", "n/a"]
    assert node.of_cpus("cpufreq/scaling_governor") == ["powersave", "powersave", "performance", "performance"]
    node.end(EVERYTHING)
    after = node.seen()
    assert {name for name in before if before[name] != after[name]} <= {
        f"{node.root}/proc/irq/default_smp_affinity",  # as the kernel writes a mask
        f"{node.root}/cgroup/pod/crio/cpuset.sched_load_balance",
        f"{node.root}/cgroup/pod/crio/container/cpuset.sched_load_balance",
    }
    assert node.read("proc/irq/default_smp_affinity") == "0000000f"
    assert node.told == [{3}, set()]


def test_isolated_cpus_on_each_version(node: Node) -> None:
    node.start(Tuning(cpus="2-3", isolated=True))
    exclusive = [node.read(f"cgroup{place}/cpuset.cpus.exclusive") for place in ("", "/pod", "/pod/crio")]
    partitions = [node.read(f"cgroup{place}/cpuset.cpus.partition") for place in ("", "/pod", "/pod/crio")]
    balanced = [node.read(f"cgroup{place}/cpuset.sched_load_balance") for place in ("/pod", "/pod/crio", "/pod/crio/container")]
    if node.containers.hierarchies.is_unified:
        assert (exclusive, partitions) == (["", "2,3", "2,3"], ["member", "member", "isolated"])
    else:
        assert balanced == ["1", "0", "0"]
        assert exclusive == [""] * 3


def test_a_kernel_that_hands_no_cpus_down_is_told_with_the_version_that_does(node: Node) -> None:
    (node.root / "cgroup/pod/crio/cpuset.cpus.exclusive").unlink()
    if node.containers.hierarchies.is_unified:
        with pytest.raises(Unsupported, match=r"no .*crio/cpuset\.cpus\.exclusive; Linux has it from 6\.7 on"):
            node.start(Tuning(cpus="2-3", isolated=True))


def test_without_a_tuning_nothing_is_touched(node: Node) -> None:
    before = node.seen()
    node.start(None)
    assert (node.seen(), node.told) == (before, [])


def test_what_the_node_lacks_is_named_and_nothing_stays_changed(node: Node) -> None:
    (node.root / CPUS / "cpu3/power/pm_qos_resume_latency_us").unlink()
    before = node.seen()
    with pytest.raises(HostFailed, match=r"cpu3/power/pm_qos_resume_latency_us"):
        node.start(Tuning(cpus="2-3", latency="n/a"))
    with pytest.raises(Unsupported, match=r"scaling_available_governors has performance, powersave"):
        node.start(Tuning(cpus="2-3", governor="schedutil"))
    (node.root / CPUS / "cpu3/cpufreq/scaling_available_governors").unlink()
    with pytest.raises(Unsupported, match=r"cpu3/cpufreq/scaling_available_governors"):
        node.start(Tuning(cpus="3", governor="performance"))
    before.pop(f"{node.root}/{CPUS}/cpu3/cpufreq/scaling_available_governors")
    assert node.seen() == before


def test_a_node_without_irqbalance_has_its_affinity_changed(node: Node) -> None:
    (node.root / "etc/irqbalance").unlink()
    node.start(Tuning(cpus="2-3", quiet="2-3"))
    assert node.read("proc/irq/default_smp_affinity") == "00000003"
    assert not (node.root / "etc/irqbalance").exists()


def test_the_next_daemon_gives_back_what_an_ended_container_holds(node: Node) -> None:
    node.start(EVERYTHING)
    node.rows.append(row(EVERYTHING))
    node.containers.tunings = None
    asyncio.run(sweep(node.containers))
    assert node.read("proc/irq/default_smp_affinity") == "00000007"
    node.rows[:] = [row(EVERYTHING, running=False)]
    node.containers.tunings = None
    asyncio.run(sweep(node.containers))
    assert node.read("proc/irq/default_smp_affinity") == "0000000f"
    assert not (node.root / TUNED).exists()


def test_a_cgroup_that_outlives_its_container_ties_no_cpus_together(node: Node) -> None:
    asyncio.run(unbalance_ended(node.containers, row(None)))
    wanted = "1" if node.containers.hierarchies.is_unified else "0"
    assert node.read("cgroup/pod/crio/cpuset.sched_load_balance") == wanted
    (node.root / "cgroup/pod/crio").rename(node.root / "gone")
    asyncio.run(unbalance_ended(node.containers, row(None)))
