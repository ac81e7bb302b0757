"""containers.tunings: what was there comes back, whoever leaves first and whatever crashes."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from criollo.containers import tunings as module
from criollo.containers.tunings import Tunings
from criollo.errors import HostFailed
from criollo.linux.knobs import Knob

A, B = "a" * 64, "b" * 64


class Node:
    """Files like the kernel's, and the ledger of a daemon."""

    def __init__(self, root: Path) -> None:
        self.root, self.ledger = root, root / "tuned.json"
        self.affinity = root / "proc/irq/default_smp_affinity"
        self.affinity.parent.mkdir(parents=True)
        self.affinity.write_text("0000000d")
        self.governors = [root / f"cpu{cpu}" for cpu in range(4)]
        for path in self.governors:
            path.write_text("powersave\n")

    def irq(self, *cpus: int) -> dict[Knob, str]:
        return {Knob(str(self.affinity), cpu): "0" for cpu in cpus}

    def governor(self, value: str, *cpus: int) -> dict[Knob, str]:
        return {Knob(str(self.governors[cpu])): value for cpu in cpus}

    def seen(self) -> list[str]:
        return [self.affinity.read_text(), *(path.read_text().strip() for path in self.governors)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_was_there_comes_back_exactly(node: Node) -> None:
    before, tunings = node.seen(), Tunings(node.ledger)
    tunings.hold(A, {**node.irq(1, 2), **node.governor("performance", 1, 2)})  # CPU 1 had no interrupts before
    assert node.seen() == ["00000009", "powersave", "performance", "performance", "powersave"]
    assert (tunings.holders(), tunings.cpus_of(str(node.affinity))) == ({A}, {1, 2})
    tunings.release(A)
    tunings.release(A)
    assert (node.seen(), tunings.holders(), node.ledger.exists()) == (before, set(), False)


def test_the_next_container_on_the_same_cpus_keeps_them_when_the_first_leaves(node: Node) -> None:
    before, tunings = node.seen(), Tunings(node.ledger)
    tunings.hold(A, {**node.irq(2), **node.governor("performance", 2)})
    tunings.hold(B, {**node.irq(2, 3), **node.governor("userspace", 2)})
    tunings.release(A)
    assert node.seen() == ["00000001", "powersave", "powersave", "userspace", "powersave"]
    tunings.release(B)
    assert node.seen() == before


def test_the_one_that_came_first_has_its_own_again(node: Node) -> None:
    tunings = Tunings(node.ledger)
    tunings.hold(A, node.governor("performance", 0))
    tunings.hold(B, node.governor("userspace", 0))
    tunings.release(B)
    assert node.seen()[1] == "performance"


def test_another_daemon_puts_back_what_a_killed_one_changed(node: Node) -> None:
    before = node.seen()
    Tunings(node.ledger).hold(A, {**node.irq(0), **node.governor("performance", 0)})
    tunings = Tunings(node.ledger)
    assert tunings.holders() == {A}
    tunings.hold(A, node.irq(0))
    tunings.release(A)
    assert node.seen() == before


def test_what_another_boot_wrote_down_counts_for_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    Tunings(node.ledger).hold(A, node.governor("performance", 0))
    node.governors[0].write_text("schedutil")
    monkeypatch.setattr(module, "boot_id", lambda: "another")
    tunings = Tunings(node.ledger)
    assert tunings.holders() == set()
    tunings.release(A)
    assert node.seen()[1] == "schedutil"


def test_it_is_written_down_before_it_is_changed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.knobs, "write_all", dies)
    with pytest.raises(KeyboardInterrupt):
        Tunings(node.ledger).hold(A, node.irq(0))
    monkeypatch.undo()
    assert Tunings(node.ledger).holders() == {A}


def test_all_or_none(node: Node) -> None:
    before, tunings = node.seen(), Tunings(node.ledger)
    with pytest.raises(HostFailed, match=r"set up the CPUs of container aaa.*cpu9"):
        tunings.hold(A, {**node.irq(0), Knob(str(node.root / "cpu9")): "performance"})
    assert (node.seen(), tunings.holders(), node.ledger.exists()) == (before, set(), False)


def test_a_value_that_is_refused_later_takes_the_others_back(node: Node) -> None:
    before, tunings, partition = node.seen(), Tunings(node.ledger), node.root / "cpuset.cpus.partition"
    partition.write_text("member\n")
    with pytest.raises(HostFailed, match=r"the kernel says 'isolated invalid \(no\)'.*cpuset\.cpus\.partition"):
        tunings.hold(A, {**node.irq(0), Knob(str(partition)): "isolated invalid (no)"})
    assert (node.seen(), partition.read_text(), tunings.holders()) == (before, "member", set())


def test_what_has_gone_meanwhile_is_no_trouble(node: Node) -> None:
    tunings = Tunings(node.ledger)
    tunings.hold(A, {**node.governor("performance", 0, 1), **node.irq(0)})
    node.governors[0].unlink()
    tunings.release(A)
    assert (node.governors[1].read_text(), tunings.holders()) == ("powersave", set())


def test_what_cannot_be_put_back_is_tried_again(node: Node) -> None:
    tunings = Tunings(node.ledger)
    tunings.hold(A, node.governor("performance", 0, 1))
    node.governors[0].unlink()
    node.governors[0].mkdir()
    with pytest.raises(HostFailed, match=r"put back the CPUs of container aaa.*cpu0"):
        tunings.release(A)
    assert node.governors[1].read_text() == "powersave"
    node.governors[0].rmdir()
    node.governors[0].write_text("performance")
    assert Tunings(node.ledger).holders() == {A}
    tunings.release(A)
    assert (node.governors[0].read_text(), tunings.holders()) == ("powersave", set())


def test_a_broken_ledger_stops_nobody(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.ledger.write_text('{"boot":')
    assert Tunings(node.ledger).holders() == set()
    assert "what the node's CPUs were set to is lost" in caplog.text


moves = st.lists(st.tuples(st.sampled_from("abc"), st.frozensets(st.integers(0, 3)), st.booleans(), st.booleans()), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(moves=moves)
def test_after_all_have_left_all_is_as_before(tmp_path_factory: pytest.TempPathFactory, moves: list[Any]) -> None:
    node = Node(tmp_path_factory.mktemp("node"))
    before, tunings = node.seen(), Tunings(node.ledger)
    for name, cpus, leaves, restarts in moves:
        if leaves:
            tunings.release(name)
        else:
            tunings.hold(name, {**node.irq(*cpus), **node.governor(name, *cpus)})
        tunings = Tunings(node.ledger) if restarts else tunings
    for name in "abc":
        tunings.release(name)
    assert (node.seen(), node.ledger.exists()) == (before, False)
