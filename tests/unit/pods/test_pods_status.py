"""What a pod's status adds, with an infra container and without."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from criollo.model.ids import PodId
from criollo.model.pod import InfraProcess, Pod, PodConfig, PodState, Resources
from criollo.pods import status

ID = PodId("b" * 64)
INFRA = InfraProcess(container_id=ID, pid=42, pid_started=1, monitor_pid=41, monitor_started=1)


def pod(*, infra: InfraProcess | None = None, **fields: Any) -> Pod:
    config = PodConfig(name="p", uid="u", namespace="n", annotations={"a": "b"}, **fields)
    return Pod(
        id=ID,
        name="p",
        config=config,
        handler="",
        state=PodState.READY,
        created_ns=0,
        hostname="web",
        namespaces={"net": "/run/netns/x", "uts": "/run/utsns/x"},
        cgroup_parent="/kubepods/p",
        network_name="bridge",
        infra=infra,
    )


def node(runroot: Path = Path("/none")) -> Any:
    places = SimpleNamespace(bundle=lambda object_id: runroot / object_id)
    return SimpleNamespace(pause_image="pause:3.10", containers=SimpleNamespace(places=places))


def told(each: Pod, spec: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(status.verbose(node(), each, spec)["info"])
    return found


def test_without_an_infra_container_the_spec_says_the_namespaces() -> None:
    info = told(pod(), b"{}")
    assert (info["image"], info["pid"]) == ("", 0)
    assert info["runtimeSpec"]["hostname"] == "web"
    assert info["runtimeSpec"]["annotations"] == {"a": "b"}
    assert info["runtimeSpec"]["linux"]["namespaces"] == [
        {"type": "network", "path": "/run/netns/x"},
        {"type": "uts", "path": "/run/utsns/x"},
    ]


def test_with_one_its_process_image_and_spec_are_told() -> None:
    info = told(pod(infra=INFRA), b'{"hostname":"web"}')
    assert (info["image"], info["pid"], info["runtimeSpec"]) == ("pause:3.10", 42, {"hostname": "web"})


def test_what_people_look_for_is_there() -> None:
    info = told(pod(log_directory="/var/log/pods/p"), b"{}")
    assert (info["cgroupParent"], info["network"], info["logDirectory"]) == ("/kubepods/p", "bridge", "/var/log/pods/p")


def test_resources_of_the_pod_are_told_as_the_cri_has_them() -> None:
    info = told(pod(overhead=Resources(cpu_shares=7), resources=Resources(cpu_quota_us=5000)), b"{}")
    assert (info["linuxOverhead"]["cpu_shares"], info["linuxResources"]["cpu_quota"]) == (7, 5000)


def test_spec_is_that_of_the_infra_container(tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    (tmp_path / ID / "config.json").write_text('{"hostname": "web"}')
    assert asyncio.run(status.spec_of(node(tmp_path), pod(infra=INFRA))) == b'{"hostname": "web"}'
    assert asyncio.run(status.spec_of(node(tmp_path), pod())) == b"{}"
