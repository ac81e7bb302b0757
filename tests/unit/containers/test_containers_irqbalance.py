"""containers.irqbalance: the service is told, its trouble is only logged, and a reboot does not leave CPUs banned."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from criollo.aio import process, threads
from criollo.containers import irqbalance

CONFIG = 'A=1\nIRQBALANCE_BANNED_CPUS="{}"\n'


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.config, self.kept, self.calls = root / "irqbalance", root / "kept", root / "calls"
        self.affinity = root / "proc/irq/default_smp_affinity"
        self.write(self.affinity, "f")
        self.write(root / "sys/devices/system/cpu/online", "0-3")
        (root / "bin").mkdir()

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def program(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $* banned=$IRQBALANCE_BANNED_CPUS" >> {self.calls}\n{body}\n')
        path.chmod(0o755)

    def said(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def restore(self, kept: str = "") -> None:
        asyncio.run(irqbalance.restore(str(self.config), kept or str(self.kept), root=str(self.root)))

    def rebalance(self, *cpus: int) -> None:
        asyncio.run(irqbalance.rebalance(str(self.config), frozenset(cpus)))


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node(tmp_path)
    monkeypatch.setattr(process, "MINIMAL_ENV", {**process.MINIMAL_ENV, "PATH": f"{tmp_path}/bin"})
    yield made
    threads.close()


def test_a_service_that_is_enabled_is_restarted(node: Node) -> None:
    node.write(node.config, CONFIG.format("1"))
    node.program("systemctl", "echo enabled")
    node.program("irqbalance", "")
    node.rebalance(0)
    assert node.said() == ["systemctl is-enabled irqbalance banned=", "systemctl restart irqbalance banned="]


@pytest.mark.parametrize(("has_config", "enabled"), [(False, "enabled"), (True, "disabled")])
def test_else_the_program_runs_once(node: Node, has_config: bool, enabled: str) -> None:
    if has_config:
        node.write(node.config, CONFIG.format("1"))
    node.program("systemctl", f"echo {enabled}")
    node.program("irqbalance", "")
    node.rebalance(0, 33)
    assert node.said()[-1] == "irqbalance --oneshot banned=00000002,00000001"


def test_trouble_is_only_told(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.rebalance(0)
    assert "the node has no irqbalance" in caplog.text
    node.program("irqbalance", "echo broken >&2; exit 3")
    node.rebalance(0)
    assert "irqbalance was not told of other CPUs" in caplog.text


def test_what_is_banned_at_the_first_start_is_kept_and_put_back_after_a_reboot(node: Node) -> None:
    node.write(node.config, CONFIG.format("00000001"))
    node.restore()
    assert (node.kept.read_text(), node.config.read_text()) == ("00000001\n", CONFIG.format("00000001"))
    node.write(node.config, CONFIG.format("0000000d"))  # pods
    node.write(node.affinity, "2")  # the same boot
    node.restore()
    assert node.config.read_text() == CONFIG.format("0000000d")
    node.write(node.affinity, "ffffffff")
    node.restore()
    assert node.config.read_text() == CONFIG.format("00000001")


def test_a_configuration_that_banned_nothing_bans_nothing_again(node: Node) -> None:
    node.write(node.config, "A=1\n")
    node.restore()
    node.write(node.config, irqbalance.knobs.with_banned("A=1\n", "0000000c"))
    node.restore()
    assert node.config.read_text() == "A=1\n"


@pytest.mark.parametrize("kept", ["disable", " Disable "])
def test_nothing_is_kept_where_nobody_wants_it(node: Node, kept: str) -> None:
    node.write(node.config, CONFIG.format("1"))
    node.restore(kept)
    assert sorted(os.listdir(node.root)) == ["bin", "irqbalance", "proc", "sys"]


def test_a_node_without_it_is_left_alone(node: Node) -> None:
    node.restore()
    assert not node.kept.exists()


def test_what_a_killed_daemon_left_of_both_files_goes(node: Node) -> None:
    node.write(node.root / "real/irqbalance", CONFIG.format("1"))
    node.config.symlink_to("real/irqbalance")
    for left in ("real/.irqbalance.0123abcd", ".irqbalance.89abcdef", ".kept.01234567"):
        node.write(node.root / left, "half")
    node.write(node.root / "real/.other.01234567", "somebody's")
    node.restore()
    assert sorted(os.listdir(node.root)) == ["bin", "irqbalance", "kept", "proc", "real", "sys"]
    assert sorted(os.listdir(node.root / "real")) == [".other.01234567", "irqbalance"]
