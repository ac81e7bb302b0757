"""OCI artifacts: pulled, listed, mounted as files, removed."""

import json
import os
import signal
from typing import Any

import grpc
import pytest
from support.artifacts import EMPTY_TYPE, make_artifact, push_artifact
from support.cri import pb
from support.daemon import Daemon
from support.image_node import images, layers, pull, refused, remove, status
from support.images import OCI_INDEX, OCI_MANIFEST, digest_of, push_manifest
from support.registry import Registry

pytestmark = pytest.mark.node

FILES = {"weights.bin": b"\0\1\2" * 1000, "conf/a.json": b"{}", "run.sh": b"#!/bin/sh\necho ran\n", "": b"nameless"}


@pytest.fixture
def artifact(daemon: Daemon, registry: Registry) -> Any:
    """Pushed and pulled; its reference. Afterwards it is gone, and nothing of it is left."""
    before = layers(daemon)
    push_artifact(registry, "team/model", "v1", make_artifact(FILES))
    pull(daemon, registry.reference("team/model", "v1"))
    yield registry.reference("team/model", "v1")
    daemon.remove_everything()
    remove(daemon, registry.reference("team/model", "v1"))
    assert layers(daemon) == before


def mounting(daemon: Daemon, image: str, artifact: str, *, at: str = "/vol", **fields: Any) -> Any:
    config = daemon.container_config(image, "sleep", "1000")
    config.mounts.add(container_path=at, image=pb.ImageSpec(image=artifact), **fields)
    return config


def refused_create(daemon: Daemon, config: Any) -> str:
    with pytest.raises(grpc.RpcError) as told:
        daemon.create(daemon.run_pod(), config)
    return str(told.value.details())


def test_it_is_listed_with_its_names_and_is_no_image_to_run(daemon: Daemon, registry: Registry, artifact: str) -> None:
    made = make_artifact(FILES)
    found = status(daemon, artifact)
    assert found.id == made.id
    assert list(found.repo_tags) == [artifact]
    assert list(found.repo_digests) == [f"{artifact.rpartition(':')[0]}@{made.digest}"]
    assert found.size >= sum(map(len, FILES.values()))
    assert not found.pinned
    assert found in images(daemon)
    for name in (found.repo_digests[0], found.id, found.id[:12], f"sha256:{found.id}"):
        assert status(daemon, name) == found
    verbose = daemon.cri.call("ImageStatus", pb.ImageStatusRequest(image=pb.ImageSpec(image=artifact), verbose=True))
    assert "application/vnd.example.thing" in verbose.info["info"]
    assert "it is an OCI artifact" in refused_create(daemon, daemon.container_config(artifact, "true"))


@pytest.mark.parametrize("handler", ["crun", "runc"])
def test_its_files_are_seen_under_their_names_beside_what_the_image_has(
    daemon: Daemon, image: str, artifact: str, handler: str
) -> None:
    container = daemon.run_container(daemon.run_pod(handler=handler), mounting(daemon, image, artifact, at="/etc"))
    assert daemon.output(container, "cat", "/etc/conf/a.json") == "{}"
    assert daemon.output(container, "sha256sum", "/etc/weights.bin").split()[0] == digest_of(FILES["weights.bin"])[7:]
    assert "root:x:0:0" in daemon.output(container, "cat", "/etc/passwd")
    assert b"Read-only" in daemon.exec(container, "sh", "-c", "echo x > /etc/weights.bin").stderr
    assert daemon.exec(container, "sh", "-c", "/etc/run.sh").exit_code == 126
    assert daemon.exec(container, "rm", "/etc/weights.bin").exit_code != 0


def test_a_sub_path_picks_files(daemon: Daemon, image: str, artifact: str) -> None:
    config = mounting(daemon, image, artifact, image_sub_path="conf")
    config.mounts.add(container_path="/one", image=pb.ImageSpec(image=artifact), image_sub_path="weights.bin")
    container = daemon.run_container(daemon.run_pod(), config)
    assert daemon.output(container, "ls", "/vol").split() == ["a.json"]
    assert len(daemon.output(container, "wc", "-c", "/one").split()) == 2
    told = refused_create(daemon, mounting(daemon, image, artifact, image_sub_path="none"))
    assert told.startswith("ImageVolumeMountFailed: ")
    assert "does not exist in OCI artifact volume" in told


def test_mounting_on_a_file_is_refused(daemon: Daemon, image: str, artifact: str) -> None:
    assert "/etc/passwd" in refused_create(daemon, mounting(daemon, image, artifact, at="/etc/passwd"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_cannot_be_removed_while_a_container_mounts_it(daemon: Daemon, image: str, artifact: str, number: int) -> None:
    pod = daemon.run_pod()
    container = daemon.run_container(pod, mounting(daemon, image, artifact))
    daemon.restart(number)
    with pytest.raises(grpc.RpcError, match=container[:12]):
        remove(daemon, artifact)
    assert daemon.output(container, "cat", "/vol/conf/a.json") == "{}"
    daemon.remove_pod(pod)


@pytest.mark.parametrize("name", ["../escape", "/absolute", "a/../../b", "a\nb", "..", "a\0b", "x" * 300, "end/"])
def test_a_hostile_name_is_never_mounted(daemon: Daemon, registry: Registry, image: str, name: str) -> None:
    push_artifact(registry, "team/hostile", "v1", make_artifact({name: b"hostile", "fine": b"1"}))
    reference = registry.reference("team/hostile", "v1")
    pull(daemon, reference)
    told = refused_create(daemon, mounting(daemon, image, reference))
    assert told.startswith("ImageVolumeMountFailed: ")
    assert "relative path of plain names" in told
    remove(daemon, reference)


def test_no_file_with_a_name_is_told(daemon: Daemon, registry: Registry, image: str) -> None:
    push_artifact(
        registry, "team/chart", "v1", make_artifact({"": b"chart"}, artifact_type="", config_type="application/x.helm")
    )
    reference = registry.reference("team/chart", "v1")
    pull(daemon, reference)
    assert "no blob of artifact" in refused_create(daemon, mounting(daemon, image, reference))
    remove(daemon, reference)


def test_the_model_specs_names_count(daemon: Daemon, registry: Registry, image: str) -> None:
    push_artifact(registry, "team/cncf", "v1", make_artifact({"w/0": b"zero"}, key="org.cncf.model.filepath"))
    reference = registry.reference("team/cncf", "v1")
    pull(daemon, reference)
    container = daemon.run_container(daemon.run_pod(), mounting(daemon, image, reference))
    assert daemon.output(container, "cat", "/vol/w/0") == "zero"
    daemon.remove_everything()
    remove(daemon, reference)


def test_artifacts_share_blobs_and_an_index_leads_to_one(daemon: Daemon, registry: Registry) -> None:
    before = len(layers(daemon))
    one, two = make_artifact({"a": b"shared", "b": b"1"}), make_artifact({"a": b"shared", "b": b"2"}, config_type=EMPTY_TYPE)
    push_artifact(registry, "team/share", "one", one)
    push_artifact(registry, "team/share", "two", two)
    entry = {
        "mediaType": OCI_MANIFEST,
        "digest": two.digest,
        "size": len(two.manifest),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    push_manifest(registry, "team/share", "index", OCI_INDEX, index)
    pull(daemon, registry.reference("team/share", "one"))
    assert pull(daemon, registry.reference("team/share", "index")) == two.id
    assert len(layers(daemon)) == before + 3
    found = status(daemon, registry.reference("team/share", "index"))
    assert {each.rpartition("@")[2] for each in found.repo_digests} == {digest_of(index), two.digest}
    remove(daemon, one.id)
    assert len(layers(daemon)) == before + 2
    remove(daemon, two.id)
    assert len(layers(daemon)) == before


def test_a_blob_that_is_not_what_its_digest_says_leaves_nothing(daemon: Daemon, registry: Registry) -> None:
    before = layers(daemon)
    made = make_artifact({"a": b"right " * 100})
    push_artifact(registry, "team/wrong", "v1", made)
    digest = digest_of(made.blobs[1])[7:]
    stored = registry.root / f"store/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    stored.write_bytes(b"wrong " * 100)
    refused(daemon, registry.reference("team/wrong", "v1"), grpc.StatusCode.DATA_LOSS)
    assert layers(daemon) == before
    assert os.listdir(daemon.root / "staging") == []
    assert status(daemon, registry.reference("team/wrong", "v1")) is None


@pytest.mark.parametrize(
    "point",
    [
        "criollo.storage.layers:Layers.stage:after",
        "criollo.storage.layers:Layers.commit:after",
        "criollo.state.images:ImageRows.add_layer:after",
        "criollo.state.images:ImageRows.add:before",
    ],
)
def test_a_pull_that_is_killed_leaves_nothing_and_can_be_repeated(daemon: Daemon, registry: Registry, point: str) -> None:
    before = layers(daemon)
    push_artifact(registry, "team/killed", "v1", make_artifact({"a": b"1", "b": b"2"}))
    reference = registry.reference("team/killed", "v1")
    daemon.stop()
    daemon.start(fault=f"{point}:kill")
    with pytest.raises(grpc.RpcError):
        pull(daemon, reference)
    daemon.wait_death()
    daemon.start()
    assert status(daemon, reference) is None
    assert layers(daemon) == before
    assert os.listdir(daemon.root / "staging") == []
    pull(daemon, reference)
    remove(daemon, reference)
