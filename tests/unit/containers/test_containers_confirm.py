"""containers.confirm: a process that is not confined is killed, all others are left alone."""

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from support.scarcity import free_descriptors

from criollo.containers import confirm
from criollo.containers.confirm import has_profile
from criollo.errors import Exhausted
from criollo.linux import procfs
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, PodId

SELINUX = "system_u:system_r:container_t:s0:c1,c2"


class Node:
    """Remembers who was killed."""

    def __init__(self, profile: str | None) -> None:
        self.killed: list[Any] = []
        self.apparmor = None if profile is None else SimpleNamespace(choose=lambda *_, **__: profile)

    def runtime_of(self, handler: str) -> "Node":
        return self

    async def kill_all(self, target: Any) -> None:
        self.killed.append(target)


def run(
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
    *,
    profile: str | None = "crio-default",
    label: str = "",
    is_gone: bool = False,
    limit_s: float = 60,
) -> list[Any]:
    """What is killed when the kernel says these one after the other, the last for ever."""
    monkeypatch.setattr(confirm, "watched", lambda containers, container: container.id)
    started = procfs.start_time(os.getpid()) or 0
    container = Container(
        id=ContainerId("b" * 64),
        pod_id=PodId("a" * 64),
        name="c",
        config=ContainerConfig(name="c", image=ImageSpec(image="i")),
        handler="",
        state=ContainerState.RUNNING,
        created_ns=0,
        pid=os.getpid(),
        pid_started=started + (1 if is_gone else 0),
        process_label=label,
    )
    words: Iterator[str] = iter(said)
    node: Any = Node(profile)

    def read(pid: int) -> str:
        nonlocal last
        last = next(words, last)
        return last

    last = ""
    asyncio.run(confirm.confirm(node, container, read=read, limit_s=limit_s))
    return list(node.killed)


@pytest.mark.parametrize(
    "said", [["crio-default (enforce)"], ["unconfined", "", "crio-default (enforce)"], ["a//&crio-default (mixed)"]]
)
def test_a_confined_process_is_left_alone(monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    assert run(monkeypatch, said) == []


@pytest.mark.parametrize("said", ["unconfined", "crio-default-not (enforce)", "", "other (enforce)"])
def test_a_process_that_stays_unconfined_is_killed(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    assert len(run(monkeypatch, [said], limit_s=0)) == 1


@pytest.mark.parametrize("profile", [None, "unconfined", "own", ""])
def test_only_our_own_profile_is_insisted_on(monkeypatch: pytest.MonkeyPatch, profile: str | None) -> None:
    assert run(monkeypatch, ["unconfined"], profile=profile) == []


def test_a_process_that_is_gone_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [""], is_gone=True) == []


@pytest.mark.parametrize(
    ("said", "kills"),
    [(SELINUX, 0), ("u:r:another_t:s0:c1,c2", 0), ("system_u:system_r:init_t:s0", 1), ("", 1), ("unconfined", 1)],
)
def test_a_process_has_its_label_or_at_least_its_level(monkeypatch: pytest.MonkeyPatch, said: str, kills: int) -> None:
    assert len(run(monkeypatch, [said], profile=None, label=SELINUX, limit_s=0 if kills else 60)) == kills


def test_who_cannot_look_neither_kills_nor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors for longer than the limit, for a process that is right only once it can be seen again."""
    blind = iter([Exhausted("no descriptor")] * 8)

    def is_alive(pid: int, started: int) -> bool:
        for error in blind:
            raise error
        return True

    monkeypatch.setattr(procfs, "is_alive", is_alive)
    assert run(monkeypatch, ["crio-default (enforce)"]) == []


def test_want_of_descriptors_is_no_missing_label() -> None:
    with free_descriptors(os.getpid(), 0), pytest.raises(Exhausted):
        confirm.label_of(os.getpid())


def test_the_kernels_word_about_a_process_can_be_read() -> None:
    assert isinstance(confirm.label_of(os.getpid()), str)
    assert confirm.label_of(1 << 30) == ""


def test_a_profile_is_found_among_several() -> None:
    assert has_profile("crio-default//&:root//ns:x (enforce)", "crio-default")
    assert not has_profile("crio-default", "crio-default")  # no mode: no label of AppArmor
