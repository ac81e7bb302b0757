"""Images of every kind that registries have: foreign, empty and chunked layers, platforms with variants."""

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.bad_registry import BadRegistry, run_bad_registry
from support.bad_registry import status as status_of
from support.daemon import Daemon, running_daemon
from support.image_node import layers, pull, refused, registries_conf, remove, status
from support.images import (
    Image,
    Layer,
    busybox_image,
    busybox_layer,
    digest_of,
    file,
    make_image,
    make_index,
    make_layer,
    push,
    tar_of,
    write_oci_layout,
)
from support.registry import Registry

pytestmark = pytest.mark.node

EMPTY_TAR = bytes(1024)
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


@pytest.fixture(scope="module")
def serving() -> Iterator[BadRegistry]:
    """A registry that stores what others refuse."""
    with run_bad_registry() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(registry: Registry, serving: BadRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    before = leaks.snapshot()
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=registries_conf(registry, serving)) as running:
        pull(running, registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def as_before(daemon: Daemon) -> Iterator[None]:
    before = layers(daemon), {image.id for image in daemon.cri.call("ListImages").images}
    yield
    daemon.remove_everything()
    for image in daemon.cri.call("ListImages").images:
        if image.id not in before[1]:
            remove(daemon, image.id)
    assert layers(daemon) == before[0]


def content(daemon: Daemon, reference: str) -> str:
    """What a container of the image reads in /content."""
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(reference, "sleep", "1000"))
    return daemon.output(container, "cat", "/content")


def test_empty_layers_of_every_shape_are_layers(daemon: Daemon, registry: Registry) -> None:
    dockers = gzip.compress(EMPTY_TAR, mtime=0)
    nothing = make_layer(EMPTY_TAR, "zstd")
    image = make_image(
        [
            busybox_image().layers[0],
            Layer(dockers, "application/vnd.oci.image.layer.v1.tar+gzip", digest_of(EMPTY_TAR)),
            nothing,
            [file("content", "above")],
            make_layer(EMPTY_TAR, "none"),
        ]
    )
    push(registry, "kinds/empty", "v1", image)
    assert pull(daemon, registry.reference("kinds/empty", "v1")) == image.id
    assert content(daemon, registry.reference("kinds/empty", "v1")) == "above"


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo makes the chunked layers")
def test_a_chunked_layer_is_read_as_zstd(daemon: Daemon, registry: Registry, tmp_path: Path) -> None:
    tars = [busybox_layer(), tar_of([file("content", os.urandom(100_000).hex())])]
    layered = make_image([tar[: -(-len(tar.rstrip(b"\0")) // 512) * 512] + EMPTY_TAR for tar in tars])  # skopeo cuts padding
    layout = write_oci_layout(tmp_path / "layout", {"v1": layered})
    target = f"docker://{registry.host}/kinds/chunked:v1"
    argv = ["skopeo", "copy", "--dest-tls-verify=false", "--dest-compress-format", "zstd:chunked", "--dest-compress"]
    subprocess.run([*argv, f"oci:{layout}:v1", target], check=True, capture_output=True)
    raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", target], check=True, capture_output=True).stdout
    found = json.loads(raw)["layers"][-1]
    assert found["mediaType"].endswith("+zstd")
    assert any("zstd-chunked" in key for key in found["annotations"])
    reference = registry.reference("kinds/chunked", "v1")
    pull(daemon, reference)
    assert len(content(daemon, reference)) == 200_000


def foreign(address: str) -> Image:
    """An image whose upper layer is foreign, with an address of its own."""
    tar = tar_of([file("content", "foreign")])
    upper = Layer(gzip.compress(tar, mtime=0), FOREIGN, digest_of(tar))
    image = make_image([busybox_image(docker=True).layers[0], upper], docker=True)
    manifest: dict[str, Any] = json.loads(image.manifest)
    manifest["layers"][1]["urls"] = [f"{address}/v2/elsewhere/blobs/{upper.digest}"]
    return dataclasses.replace(image, manifest=json.dumps(manifest).encode())


def test_a_foreign_layer_comes_from_the_registry_whatever_its_addresses(daemon: Daemon, serving: BadRegistry) -> None:
    serving.add("kinds/foreign", "v1", foreign("http://127.0.0.1:1"))
    reference = serving.reference("kinds/foreign", "v1")
    pull(daemon, reference)
    assert content(daemon, reference) == "foreign"


def test_addresses_of_a_foreign_layer_are_not_asked(daemon: Daemon, serving: BadRegistry) -> None:
    image = foreign(serving.url)
    serving.add("elsewhere", "v1", image)
    serving.add("kinds/foreign", "v2", image)
    serving.break_at(f"/v2/kinds/foreign/blobs/{image.layers[1].digest}", status_of(404), times=100)
    told = refused(daemon, serving.reference("kinds/foreign", "v2"), grpc.StatusCode.NOT_FOUND)
    assert "foreign layer" in told
    assert "push the image with all its layers" in told
    assert serving.asked("/v2/elsewhere/") == []
    assert status(daemon, serving.reference("kinds/foreign", "v2")) is None


def test_the_best_variant_of_an_index_is_taken(daemon: Daemon, registry: Registry) -> None:
    plain, newer, other = (
        make_image([busybox_image().layers[0], [file("content", name)]], platform={"os": "linux", **platform})
        for name, platform in {
            "plain": {"architecture": "amd64"},
            "newer": {"architecture": "amd64", "variant": "v4"},
            "other": {"architecture": "arm64", "variant": "v8"},
        }.items()
    )
    for docker in (False, True):
        name = f"kinds/index-{docker}".lower()
        push(registry, name, "v1", make_index([other, newer, plain], docker=docker, attestation=not docker))
        assert pull(daemon, registry.reference(name, "v1")) == plain.id
        assert content(daemon, registry.reference(name, "v1")) == "plain"
