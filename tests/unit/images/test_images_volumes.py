"""images.volumes: which images a container may mount, and what is bound into it. With a kernel: tests/node/daemon."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from support.artifacts import make_artifact
from support.image_store import add_image, image_store

from criollo.errors import Exhausted, HostFailed, Invalid, VolumeFailed
from criollo.images.context import Images
from criollo.images.volumes import MAX_VOLUMES, Volume, find_volumes, reported, show
from criollo.model.container import Mount
from criollo.model.ids import ImageId
from criollo.model.image import Image
from criollo.model.pod import IdMapping
from criollo.trust.judge import Judge
from criollo.trust.policies import Policies
from criollo.trust.policy import Policy

ID, NAME = "a" * 64, "a.example/content:v1"
MADE = make_artifact({"one": b"1", "deep/two": b"2"})


class Roots:
    """A root store that mounts nothing, and remembers."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[Any] = []
        self._fault = fault

    async def mount_volume(
        self, container_id: str, number: int, layers: Sequence[str], *, sub_path: str, mapped: Any, label: str
    ) -> Path:
        self.asked.append((container_id, number, tuple(layers), sub_path, mapped))
        if self._fault is not None:
            raise self._fault
        return Path("/store/tree")

    async def show_files(self, container_id: str, number: int, sources: Sequence[Path], *, label: str) -> list[Path]:
        self.asked.append((container_id, number, [path.parent.name for path in sources]))
        return [Path(f"/store/{at}") for at in range(len(sources))]


def found(images: Images, *mounts: Mount) -> dict[int, Volume]:
    return asyncio.run(find_volumes(images, mounts))


def add_artifact(images: Images) -> Image:
    return images.rows.add(
        Image(
            id=ImageId(MADE.id),
            names=("a.example/model:v1",),
            manifest_digest=MADE.digest,
            manifest=MADE.manifest,
            config=b"{}",
            layers=(),
            size_bytes=0,
            pulled_ns=1,
        )
    )


def shown(images: Images, roots: Roots, mount: Mount) -> Any:
    images.roots = cast(Any, roots)
    return asyncio.run(show(images, "c1", found(images, mount)[0], None))


def test_images_are_found_by_name_and_id_and_other_mounts_left_alone(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME], digests=[f"a.example/content@sha256:{'d' * 64}"])
        mounts = (
            Mount(container_path="/a", host_path="/x"),
            Mount(container_path="/b", image=ID),
            Mount(container_path="/c", image=NAME),
        )
        volumes = found(images, *mounts)
        assert {at: volume.image.id for at, volume in volumes.items()} == {1: ID, 2: ID}
        assert [mount.image_ref for mount in reported(mounts, volumes)] == ["", *[f"a.example/content@sha256:{'d' * 64}"] * 2]


def test_what_may_not_be_mounted_is_told_with_its_place(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME])
        add_artifact(images)
        with pytest.raises(VolumeFailed, match=r"cannot mount image none:1 at /vol: .*pull it first"):
            found(images, Mount(container_path="/vol", image="none:1"))
        with pytest.raises(VolumeFailed, match=r"cannot mount image model at /vol: .*does not exist in OCI artifact volume"):
            found(images, Mount(container_path="/vol", image=MADE.id, image_sub_path="x", user_specified_image="model"))
        images.mounts_artifacts = False
        with pytest.raises(VolumeFailed, match="oci_artifact_mount_support"):
            found(images, Mount(container_path="/vol", image=MADE.id))
        rules = json.dumps({"default": [{"type": "reject"}]}).encode()
        images.judge = Judge(Policies.of(Policy.parse(rules, where="test")), scratch=tmp_path / "trust")
        with pytest.raises(VolumeFailed, match="reject"):
            found(images, Mount(container_path="/vol", image=NAME))


def test_a_container_has_a_limit_of_volumes(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME])
        mounts = [Mount(container_path=f"/{at}", image=ID) for at in range(MAX_VOLUMES + 1)]
        assert len(found(images, *mounts[:-1])) == MAX_VOLUMES
        with pytest.raises(Invalid, match="at most 100"):
            found(images, *mounts)


def test_an_image_is_one_mount_whose_owners_are_mapped_already(tmp_path: Path) -> None:
    mapping = (IdMapping(host_id=1000, container_id=0, length=1),)
    mount = Mount(
        container_path="/vol",
        image=NAME,
        image_sub_path="./a//b",
        readonly=True,
        options=("noexec", "nodev"),
        uid_mappings=mapping,
        gid_mappings=mapping,
    )
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME], layers=["0" * 32])
        roots = Roots()
        (planned,) = shown(images, roots, mount)
        assert roots.asked == [("c1", 0, ("0" * 32,), "a/b", None)]
        assert planned.source == "/store/tree"
        changed = {"options": ("noexec", "nodev", "nosuid"), "uid_mappings": (), "gid_mappings": ()}
        assert planned.mount == msgspec.structs.replace(mount, **changed)


def test_an_artifact_is_a_mount_per_file(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_artifact(images)
        planned = shown(images, Roots(), Mount(container_path="/vol/", image=MADE.id))
        assert [(each.mount.container_path, each.source) for each in planned] == [
            ("/vol/one", "/store/0"),
            ("/vol/deep/two", "/store/1"),
        ]
        assert all(each.mount.options == ("nodev", "noexec", "nosuid") for each in planned)
        (planned,) = shown(images, Roots(), Mount(container_path="/file", image=MADE.id, image_sub_path="deep/two"))
        assert planned.mount.container_path == "/file"


def test_failures_of_the_kernel_have_kubelets_word_but_a_full_disk_stays_one(tmp_path: Path) -> None:
    with image_store(tmp_path) as images:
        add_image(images, ID, names=[NAME])
        mount = Mount(container_path="/vol", image=NAME)
        with pytest.raises(VolumeFailed, match="no such driver"):
            shown(images, Roots(HostFailed("no such driver")), mount)
        with pytest.raises(Exhausted):
            shown(images, Roots(Exhausted("full")), mount)
