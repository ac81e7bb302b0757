"""containers.labels: the kernel is asked about each label, and when a volume is relabelled."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.containers import labels
from criollo.errors import Invalid
from criollo.linux import selinux as kernel
from criollo.model.container import Container, ContainerConfig, ContainerSecurity, ContainerState, ImageSpec, Mount
from criollo.model.ids import ContainerId, PodId
from criollo.model.pod import Pod, PodConfig, PodSecurity, PodState, SELinuxOptions
from criollo.security.selinux import Labeller, parse_contexts
from criollo.specgen.request import Defaults
from criollo.workers.messages import Relabelled

FILE = "u:o:f:s0:c1,c2"
VOLUME = Mount(container_path="/v", host_path="/data", selinux_relabel=True)
SPC = SELinuxOptions(type="spc_t")


class Node:
    """Remembers what was relabelled."""

    def __init__(self, pod: Pod, *allowed: str) -> None:
        self.asked: list[tuple[str, str, bool]] = []
        self.state = SimpleNamespace(pods={pod.id: pod})
        self.workers = self
        self._defaults = Defaults(allowed_annotations=allowed)

    def defaults_for(self, pod: Pod) -> Defaults:
        return self._defaults

    async def relabel(self, path: str, label: str, *, skip_if_right: bool) -> Relabelled:
        self.asked.append((path, label, skip_if_right))
        return Relabelled(changed=1)


def pod(annotations: dict[str, str] | None = None, options: SELinuxOptions | None = None) -> Pod:
    security = PodSecurity(selinux=options)
    config = PodConfig(name="p", uid="u", namespace="n", annotations=annotations or {}, security=security)
    return Pod(id=PodId("a" * 64), name="p", config=config, handler="", state=PodState.READY, created_ns=0)


def container(label: str = FILE, options: SELinuxOptions | None = None) -> Container:
    config = ContainerConfig(name="c", image=ImageSpec(image="i"), security=ContainerSecurity(selinux=options))
    return Container(
        id=ContainerId("b" * 64),
        pod_id=PodId("a" * 64),
        name="c",
        config=config,
        handler="",
        state=ContainerState.CREATING,
        created_ns=0,
        mount_label=label,
    )


def relabelled(node: Any, of: Container, mount: Mount = VOLUME) -> list[tuple[str, str, bool]]:
    asyncio.run(labels.relabel(node, of, mount, "/real/data"))
    return list(node.asked)


def test_a_volume_gets_the_label_of_its_container() -> None:
    assert relabelled(Node(pod()), container()) == [("/real/data", FILE, False)]


@pytest.mark.parametrize(
    ("of", "above", "mount"),
    [
        (container(), None, Mount(container_path="/v", host_path="/data")),
        (container(label=""), None, VOLUME),
        (container(options=SPC), None, VOLUME),
        (container(), SPC, VOLUME),
    ],
)
def test_no_volume_is_relabelled_that_need_not_be(of: Container, above: SELinuxOptions | None, mount: Mount) -> None:
    assert relabelled(Node(pod(options=above)), of, mount) == []


@pytest.mark.parametrize(
    ("annotations", "allowed", "skips"),
    [
        ({labels.TRY_SKIP: "true"}, (labels.TRY_SKIP,), True),
        ({"io.kubernetes.cri-o.TrySkipVolumeSELinuxLabel": "true"}, (labels.TRY_SKIP,), True),
        ({labels.TRY_SKIP: "true"}, (), False),
        ({labels.TRY_SKIP: "yes"}, (labels.TRY_SKIP,), False),
    ],
)
def test_the_annotation_counts_where_it_is_allowed(
    annotations: dict[str, str], allowed: tuple[str, ...], *, skips: bool
) -> None:
    assert relabelled(Node(pod(annotations), *allowed), container()) == [("/real/data", FILE, skips)]


def test_the_kernel_is_asked_about_both_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(kernel, "check", lambda label, field: asked.append(label))
    labeller = Labeller(parse_contexts('process = "u:r:p:s0"\nfile = "u:o:f:s0"\n'), taken=lambda: ())
    made = labels.of_pod(labeller, pod().config)
    own = labels.of_container(labeller, container().config, pod())
    assert asked == [*made, *own]

    def refuse(label: str, field: str) -> None:
        raise Invalid(field, label, "another one")

    monkeypatch.setattr(kernel, "check", refuse)
    with pytest.raises(Invalid, match="selinux_options"):
        labels.of_pod(labeller, pod().config)
