"""The route for one container: CRI-O's field names, and clear refusals."""

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from criollo.admin.containers import container_routes
from criollo.aio.http_server import Request
from criollo.errors import Invalid, NotFound
from criollo.model.container import Container, ContainerConfig, ContainerState, ImageSpec
from criollo.model.ids import ContainerId, ImageId, PodId
from criollo.model.pod import Pod, PodConfig, PodState
from criollo.state.records import State

ID, OTHER, POD = "c1" * 32, "c2" * 32, "b" * 64


def container(container_id: str) -> Container:
    config = ContainerConfig(
        name="app", image=ImageSpec(image="sha256:x", user_specified_image="busybox"), labels={"a": "b"}, annotations={"c": "d"}
    )
    return Container(
        id=ContainerId(container_id),
        pod_id=PodId(POD),
        name=f"k8s_app_{container_id[:2]}",
        config=config,
        handler="crun",
        state=ContainerState.RUNNING,
        created_ns=7,
        pid=42,
        image_id=ImageId("e" * 64),
        log_path="/l",
    )


def ask(wanted: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place, contextlib.closing(State(Path(place) / "state.db")) as state:
        config = PodConfig(name="p", uid="u", namespace="n")
        pod = Pod(id=PodId(POD), name="p", config=config, handler="", state=PodState.READY, created_ns=1, ips=("10.0.0.1",))
        state.pods.insert(pod)
        for each in (ID, OTHER):
            state.containers.insert(container(each))
        containers: Any = SimpleNamespace(state=state, roots=SimpleNamespace(path=lambda i: f"/r/{i}"))
        route = container_routes(containers)["GET", "/containers/{}"]
        reply = asyncio.run(route(Request(method="GET", path="", query={}, headers={}, words=(wanted,))))  # type: ignore[arg-type]
    told: dict[str, Any] = json.loads(reply.body)
    return told


def test_fields_have_the_names_that_tools_read() -> None:
    assert ask("c1") == {
        "name": "k8s_app_c1",
        "pid": 42,
        "image": "busybox",
        "image_ref": "e" * 64,
        "created_time": 7,
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "crio_annotations": {},
        "log_path": "/l",
        "root": f"/r/{ID}",
        "sandbox": POD,
        "ip_addresses": ["10.0.0.1"],
    }


def test_what_is_not_clear_or_not_there_is_told() -> None:
    with pytest.raises(Invalid, match="more digits"):
        ask("c")
    with pytest.raises(NotFound):
        ask("d")
