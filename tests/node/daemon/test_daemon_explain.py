"""`crio explain` and `GET /explain/ID` of the real daemon: what happened, and what is being waited for."""

import json
import os
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.cri import pb
from support.daemon import CNI_BIN, CRIO, Daemon, running_daemon, wait_for
from support.dead_mount import dead_mount, needs_fuse
from support.registry import Registry

FAILING = """#!/bin/sh
case $CNI_COMMAND in
  ADD) echo "cannot reach https://admin:hunter2@ipam/v1?key=hunter2 with token=hunter2" >&2; exit 1;;
  VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
esac
"""
SLOW = """#!/bin/sh
case $CNI_COMMAND in
  ADD) exec cat %s;;
  VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
esac
"""


@pytest.fixture(scope="module")
def daemon(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = Path(tmp_path_factory.mktemp("node"))
    settings = {"crio.network.plugin_dirs": [CNI_BIN, str(place / "plugins")]}
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as running:
        running.pull(registry.reference("busybox"))
        yield running


def crio_explain(daemon: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(CRIO), "-c", str(daemon.place / "crio.conf"), "-d", "", "explain", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def explain(daemon: Daemon, words: str) -> Any:
    said = crio_explain(daemon, "--json", words)
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def use_plugin(daemon: Daemon, script: str) -> str:
    """A network of one plugin; returns the plugin's path."""
    kind = f"plugin-{uuid.uuid4().hex[:8]}"
    path = daemon.place / "plugins" / kind
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)
    daemon.write_network()
    conf = daemon.network_dir / "10-test.conflist"
    conf.write_text(json.dumps({"cniVersion": "1.0.0", "name": kind, "plugins": [{"type": kind}]}))
    wait_for(lambda: kind in daemon.log())
    return str(path)


@pytest.fixture
def usual_network(daemon: Daemon) -> Iterator[None]:
    yield
    loaded = daemon.log().count('"CNI network loaded" network=test')
    daemon.write_network()
    wait_for(lambda: daemon.log().count('"CNI network loaded" network=test') > loaded)


def test_life_of_a_container_is_told_until_after_its_removal(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod(daemon.pod_config("explained"))
    container = daemon.run_container(pod, daemon.container_config(image, "sh", "-c", "exit 3"))
    wait_for(lambda: explain(daemon, container)["state"] == "EXITED")
    daemon.remove_container(container)
    daemon.remove_pod(pod)
    told = explain(daemon, container[:12])
    assert told["id"] == container
    assert told["state"] == "REMOVED"
    assert [move[1] for move in told["moves"]] == ["CREATING", "CREATED", "RUNNING", "EXITED", "REMOVING", "REMOVED"]
    assert told["moves"][3][2] == "exit code 3, Error"
    assert [work["what"] for work in told["works"]] == ["create container", "start container", "remove container"]
    created = told["works"][0]
    stages = [step["name"] for step in created["steps"] if step["kind"] == "stage"]
    assert stages == [
        "container storage creation",
        "container volume configuration",
        "container spec configuration",
        "container runtime creation",
    ]
    assert all(step["seconds"] >= 0 for work in told["works"] for step in work.get("steps", []))
    assert any(os.path.basename(step.get("argv", [""])[0]) == "conmon" for step in created["steps"])
    assert explain(daemon, "test/explained")["id"] == pod
    assert [each["id"] for each in explain(daemon, "explained")["containers"]] == [container]


def test_text_says_it_for_people(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    said = crio_explain(daemon, pod[:10]).stdout
    assert f"({pod}): READY" in said.splitlines()[0]
    assert "run pod sandbox: " in said
    assert "sandbox network" in said
    nobody = crio_explain(daemon, "nobody")
    assert nobody.returncode == 1
    assert "nobody not found" in nobody.stderr


@pytest.mark.usefixtures("usual_network")
def test_plugin_that_hangs_is_named_while_it_hangs(daemon: Daemon) -> None:
    fifo = daemon.place / "fifo"
    os.mkfifo(fifo)
    path = use_plugin(daemon, SLOW % fifo)
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(daemon.run_pod(daemon.pod_config("hanging")))
        except grpc.RpcError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: path in crio_explain(daemon, "hanging").stdout)
    told = explain(daemon, "hanging")
    [waiting] = told["waiting"]
    assert waiting["work"] == "run pod sandbox"
    assert waiting["stage"] == "sandbox network creation"
    assert waiting["step"]["argv"] == [path]
    assert os.path.exists(f"/proc/{waiting['step']['pid']}")
    assert "WAITING: run pod sandbox, stage sandbox network creation" in crio_explain(daemon, "hanging").stdout
    fifo.write_text("no result")  # lets the plugin end
    thread.join(60)
    assert isinstance(outcome[0], grpc.RpcError)
    told = explain(daemon, "hanging")
    assert "waiting" not in told
    assert told["works"][0]["error"] != ""
    os.unlink(fifo)


@needs_fuse
def test_volume_source_that_hangs_is_named_with_its_path(daemon: Daemon, image: str) -> None:
    hung = daemon.place / "hung"
    config = daemon.container_config(image, "true", name="stuck")
    config.mounts.add(container_path="/data", host_path=str(hung / "data"))
    pod = daemon.run_pod()
    with dead_mount(hung):
        call = daemon.cri.begin(
            "CreateContainer",
            pb.CreateContainerRequest(pod_sandbox_id=pod, config=config, sandbox_config=daemon.pod_config()),
        )
        wait_for(lambda: str(hung) in crio_explain(daemon, "stuck").stdout)
        [waiting] = explain(daemon, "stuck")["waiting"]
    assert waiting["work"] == "create container"
    assert waiting["stage"] == "container volume configuration"
    assert waiting["step"]["name"] == f"look at volume source {hung}/data"
    with pytest.raises(grpc.RpcError):
        call.result()
    hung.rmdir()


@pytest.mark.usefixtures("usual_network")
def test_words_of_a_plugin_that_fails_are_told_without_secrets(daemon: Daemon) -> None:
    path = use_plugin(daemon, FAILING)
    with pytest.raises(grpc.RpcError):
        daemon.run_pod(daemon.pod_config("failing"))
    told = explain(daemon, "failing")
    assert told["state"] == "REMOVED"
    assert "cannot reach https://***@ipam/v1?***" in told["last_words"][path]
    assert "hunter2" not in json.dumps(told)


def test_words_of_a_runtime_that_fails_are_told(daemon: Daemon, image: str) -> None:
    pod = daemon.run_pod()
    with pytest.raises(grpc.RpcError):
        daemon.create(pod, daemon.container_config(image, "/no/such/program", name="broken"))
    told = explain(daemon, "broken")
    assert "/no/such/program" in json.dumps(told["works"][0])
    assert told["works"][0]["error"] != ""
    assert "FAILED" in crio_explain(daemon, "broken").stdout
