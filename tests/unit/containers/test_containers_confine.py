"""containers.confine on a node without AppArmor and SELinux: what is ignored, and what is refused."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.containers import confine
from criollo.errors import Unsupported
from criollo.model.container import ContainerConfig, ContainerSecurity, ImageSpec, Mount
from criollo.model.pod import PodConfig, ProfileType, SecurityProfile

LOCAL = SecurityProfile(type=ProfileType.LOCALHOST, localhost_ref="mine")


def node(**parts: Any) -> Any:
    """Only what `confine` looks at."""
    seccomp = SimpleNamespace(choose=lambda *_, **__: None, file_of=lambda *_, **__: "")
    return SimpleNamespace(seccomp=seccomp, apparmor=None, selinux=None, handlers=SimpleNamespace(default="crun"), **parts)


@pytest.mark.parametrize(
    "asked", [None, *(SecurityProfile(type=kind) for kind in (ProfileType.RUNTIME_DEFAULT, ProfileType.UNCONFINED))]
)
def test_what_a_node_without_apparmor_cannot_do_by_default_is_ignored(asked: SecurityProfile | None) -> None:
    found = confine.confinement(node(), ContainerSecurity(apparmor=asked), "")
    assert found.apparmor_profile == ""
    asyncio.run(confine.ready(node(), ContainerSecurity(apparmor=asked)))


def test_a_profile_of_the_pods_own_is_refused_there_by_name() -> None:
    with pytest.raises(Unsupported, match=r"AppArmor profile mine.*no AppArmor.*switched on"):
        confine.confinement(node(), ContainerSecurity(apparmor=LOCAL), "")


def test_a_privileged_container_may_name_any_profile() -> None:
    found = confine.confinement(node(), ContainerSecurity(apparmor=LOCAL, privileged=True), "")
    assert found.apparmor_profile == ""


def test_without_selinux_nothing_is_labelled() -> None:
    config = ContainerConfig(name="c", image=ImageSpec(image="i"))
    pod: Any = None
    container: Any = None
    assert confine.pod_labels(node(), PodConfig(name="p", uid="u", namespace="n")) == ("", "")
    assert confine.container_labels(node(), config, pod) == ("", "")
    asyncio.run(confine.relabel(node(), container, Mount(container_path="/v", selinux_relabel=True), "/v"))


def test_labels_of_the_records_come_into_the_spec() -> None:
    labels = confine.SelinuxLabels("u:r:t:s0", "u:o:f:s0")
    found = confine.confinement(node(), ContainerSecurity(), "", labels=labels)
    assert (found.process_label, found.mount_label) == labels
