"""kpod load --from-containerd: images of a containerd that runs, and of one that has ended, become ours."""

import json
from collections.abc import Iterator

import pytest
from kpod_node import Kpod
from support.containerd import Containerd, running_containerd
from support.images import busybox_layer, file, make_image, make_index

pytestmark = pytest.mark.node

APP = make_image([busybox_layer([file("app", "app")]), [file("more", "more")]], config={"Env": ["PATH=/bin"], "Cmd": ["sh"]})
ZSTD = make_image([busybox_layer([file("lib", "lib")])], compression="zstd", docker=True)
FOREIGN = make_image([[file("f", "f")]], platform={"os": "linux", "architecture": "s390x"})
NAME, LIB = "example.com/team/app:v1", "docker.io/library/lib:latest"


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with running_containerd() as running:
        running.load({NAME: make_index([FOREIGN, APP])}, "--all-platforms")
        running.load({LIB: ZSTD}, namespace="default")
        yield running


@pytest.fixture
def adopting(kpod: Kpod) -> Iterator[Kpod]:
    """kpod; what it took over is removed again."""
    yield kpod
    assert kpod("rmi", "-a").status == 0


def test_an_image_of_a_running_containerd_is_listed_taken_over_and_run(adopting: Kpod, containerd: Containerd) -> None:
    listed = adopting("load", "--from-containerd", containerd.root, "--list")
    assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["k8s.io", NAME], ["default", LIB]]
    assert all(line.endswith("whole") for line in listed.out.splitlines()[1:])
    said = adopting("load", "--from-containerd", containerd.root, NAME)
    assert (said.status, said.out) == (0, f"{NAME}\n"), said.err
    (image,) = [each for each in json.loads(adopting("images", "--json").out) if NAME in each["names"]]
    assert image["id"] == APP.id
    assert f"example.com/team/app@{APP.digest}" in image["digests"]
    assert len(image["digests"]) == 2  # the index, too
    assert adopting("run", "--rm", NAME, "cat", "/app", "/more").out == "appmore"


def test_all_of_a_namespace_is_taken_over(adopting: Kpod, containerd: Containerd) -> None:
    said = adopting("load", "--from-containerd", containerd.root, "--namespace", "default", "--all")
    assert (said.status, said.out) == (0, f"{LIB}\n"), said.err
    assert adopting("run", "--rm", "docker.io/library/lib", "cat", "/lib").out == "lib"


def test_a_name_that_containerd_does_not_have_is_said(kpod: Kpod, containerd: Containerd) -> None:
    said = kpod("load", "--from-containerd", containerd.root, "example.com/none:v1")
    assert said.status == 1
    assert "image example.com/none:v1 not found: kpod load --from-containerd --list shows" in said.err


def test_what_cannot_be_taken_over_does_not_stop_the_rest(adopting: Kpod) -> None:
    with running_containerd() as other:
        other.load({NAME: APP, "example.com/cut:v1": ZSTD, "example.com/other:v1": FOREIGN}, "--all-platforms")
        blobs = other.root / "io.containerd.content.v1.content/blobs/sha256"
        (blobs / ZSTD.layers[0].digest.partition(":")[2]).unlink()
        spoilt = blobs / APP.layers[1].digest.partition(":")[2]
        content = spoilt.read_bytes()
        spoilt.chmod(0o644)
        spoilt.write_bytes(content[:-1] + b"x")
        said = adopting("load", "--from-containerd", other.root, "--all")
        assert said.status == 1
        assert "cannot load example.com/cut:v1: layer sha256:" in said.err
        assert "containerd did not keep 1 of 1 layers packed" in said.err
        assert f"cannot load {NAME}: " in said.err
        spoilt.write_bytes(content)
    said = adopting("load", "--from-containerd", other.root, NAME)
    assert said.status == 1
    assert "containerd's database" in said.err


def test_a_containerd_that_has_ended_is_read_as_well(adopting: Kpod) -> None:
    with running_containerd() as other:
        other.load({NAME: APP})
        other.stop()
        assert adopting("load", "--from-containerd", other.root, NAME).out == f"{NAME}\n"
