"""images.containerd: what databases and content stores say, sound and not. With a containerd that runs: tests/node/daemon."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support import leaks
from support.bolt_file import bolt_file, write_containerd
from support.image_store import image_store
from support.images import OCI_MANIFEST, Image, Index, file, make_image, make_index
from support.waiting import cancelled_within

from criollo.errors import Damaged, Denied, Invalid, NotFound
from criollo.images import containerd
from criollo.images.adopt import adopt_images, checked_root
from criollo.images.containerd import find_content, list_images, open_content, read_images
from criollo.images.context import Images
from criollo.images.layout import Found
from criollo.oci.platform import host_platform

pytestmark = pytest.mark.node

HERE = host_platform()
APP = make_image([[file("f", "app")], [file("g", "app")]], platform={"os": "linux", "architecture": HERE.architecture})
OTHER = make_image([[file("f", "other")]], platform={"os": "linux", "architecture": "s390x"})
NAME = "example.com/team/app:v1"


def written(root: Path, image: Image | Index, *, parts: tuple[Image, ...] = (), namespace: str = "k8s.io") -> Path:
    """A containerd with one image, under the three names that its CRI plugin gives; `parts` have their blobs there."""
    names = (NAME, f"example.com/team/app@{image.digest}", "sha256:" + "a" * 64)
    blobs = {image.digest: image.manifest}
    for part in parts:
        blobs |= {**part.blobs, part.digest: part.manifest}
    write_containerd(root, {namespace: {name: (image.media_type, image.digest) for name in names}}, blobs)
    return root


def found(root: Path) -> Found:
    (stored,) = read_images(root, ["k8s.io"])
    content = open_content(root)
    try:
        return find_content(content, stored)
    finally:
        os.close(content)


def blob(root: Path, digest: str) -> Path:
    return root / "io.containerd.content.v1.content/blobs/sha256" / digest.partition(":")[2]


def test_the_names_of_one_target_are_one_image(tmp_path: Path) -> None:
    image = found(written(tmp_path, APP, parts=(APP,)))
    assert image.names == (NAME,)
    assert image.digests == (f"example.com/team/app@{APP.digest}",)
    assert (image.raw_manifest, image.config) == (APP.manifest, APP.config)
    assert [each.digest for each in image.layer_files] == [layer.digest for layer in APP.layers]


def test_of_an_index_the_platform_that_is_there_counts(tmp_path: Path) -> None:
    index = make_index([OTHER, APP])
    image = found(written(tmp_path, index, parts=(APP,)))
    assert image.raw_manifest == APP.manifest
    assert image.digests == (f"example.com/team/app@{index.digest}", f"example.com/team/app@{APP.digest}")


def test_an_older_variant_serves_where_only_that_was_pulled(tmp_path: Path) -> None:
    plain = {"os": "linux", "architecture": HERE.architecture}
    newer = make_image([[file("f", "newer")]], platform={**plain, "variant": HERE.variant or "v1"})
    index = make_index([newer, APP])
    assert found(written(tmp_path, index, parts=(APP,))).raw_manifest == APP.manifest


def test_an_index_of_which_nothing_is_here_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="none is here"):
        found(written(tmp_path, make_index([OTHER, APP])))
    with pytest.raises(NotFound):
        found(written(tmp_path, make_index([OTHER]), parts=(OTHER,)))


def test_layers_that_containerd_did_not_keep_are_counted(tmp_path: Path) -> None:
    root = written(tmp_path, APP, parts=(APP,))
    blob(root, APP.layers[1].digest).unlink()
    with pytest.raises(NotFound, match="did not keep 1 of 2 layers packed; pull the image"):
        found(root)
    (listed,) = list_images(root, ["k8s.io", "default"])
    assert (listed.namespace, listed.digest) == ("k8s.io", APP.digest)
    assert "did not keep 1 of 2 layers" in listed.missing
    assert NAME in listed.names


def test_a_document_that_is_not_its_digest_is_refused(tmp_path: Path) -> None:
    root = written(tmp_path, APP, parts=(APP,))
    blob(root, APP.digest).write_bytes(APP.manifest + b" ")
    with pytest.raises(Damaged, match="not what its digest says"):
        found(root)


def test_namespaces_are_apart(tmp_path: Path) -> None:
    root = written(tmp_path, APP, parts=(APP,), namespace="default")
    assert read_images(root, ["k8s.io"]) == []
    assert [each.namespace for each in read_images(root, ["k8s.io", "default", "none"])] == ["default"]


def test_no_containerd_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="containerd's database"):
        read_images(tmp_path, ["k8s.io"])
    with pytest.raises(NotFound, match="containerd's content store"):
        open_content(tmp_path)


@pytest.mark.parametrize(("owner", "mode"), [(1000, 0o644), (0, 0o666)])
def test_a_database_that_others_may_write_is_refused(tmp_path: Path, owner: int, mode: int) -> None:
    path = written(tmp_path, APP) / "io.containerd.metadata.v1.bolt/meta.db"
    os.chown(path, owner, 0)
    path.chmod(mode)
    with pytest.raises(Denied, match="a file of root"):
        read_images(tmp_path, ["k8s.io"])


@pytest.mark.parametrize(
    "image",
    [
        {b"target": {b"digest": b"../../etc/passwd", b"mediatype": OCI_MANIFEST.encode()}},
        {b"target": {b"digest": b"\xff", b"mediatype": b""}},
        {b"target": {}},
    ],
)
def test_targets_that_are_no_digests_are_damage(tmp_path: Path, image: dict[bytes, Any]) -> None:
    root = written(tmp_path, APP)
    raw = bolt_file({b"v1": {b"k8s.io": {b"images": {b"x:y": image}}}})
    (root / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(raw)
    with pytest.raises(Damaged, match=r"meta\.db: an image leads to nothing"):
        read_images(root, ["k8s.io"])


def test_images_without_a_name_or_a_target_are_no_trouble(tmp_path: Path) -> None:
    root = written(tmp_path, APP)
    images = {
        b"\xff:x": {b"target": {b"digest": APP.digest.encode(), b"mediatype": OCI_MANIFEST.encode()}},
        b"x:y": {b"k": b"v"},
    }
    (root / "io.containerd.metadata.v1.bolt/meta.db").write_bytes(bolt_file({b"v1": {b"k8s.io": {b"images": images}}}))
    (stored,) = read_images(root, ["k8s.io"])
    assert stored.names == ()


def test_a_root_must_be_a_path() -> None:
    assert checked_root("") == Path("/var/lib/containerd")
    assert checked_root("/x") == Path("/x")
    with pytest.raises(Invalid, match="an absolute path"):
        checked_root("x")


def test_who_leaves_while_the_content_is_opened_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = written(tmp_path / "containerd", make_image([[file("a")]]))

    async def main(images: Images) -> list[str]:
        before = leaks.descriptors()
        await cancelled_within(monkeypatch, containerd, "open_content", adopt_images(images, root, ["k8s.io"]))
        return leaks.new_descriptors(before)

    (tmp_path / "ours").mkdir()
    with image_store(tmp_path / "ours") as images:
        assert asyncio.run(main(images)) == []
