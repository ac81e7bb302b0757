"""What may come from files: one rule for `kpod load` and for the preload directory, and signatures that travel in a dir."""

from pathlib import Path
from typing import Any

import pytest
from support.image_store import run_judged
from support.images import Image, file, make_image, write_docker_archive, write_oci_layout
from support.signing import Gpg, payload

from criollo.errors import Denied
from criollo.images.context import Images
from criollo.images.load import load_images
from criollo.images.preload import Preload
from criollo.images.trusted import judge_local
from criollo.model.container import ImageSpec

pytestmark = pytest.mark.node

NAME = "registry.example/team/app:v1"
SPELT = "registry.example%2Fteam%2Fapp:v1"
ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]


def write_dir(path: Path, image: Image, *signatures: bytes) -> Path:
    """As containers/image writes it."""
    path.mkdir(parents=True)
    (path / "version").write_text("Directory Transport Version: 1.1\n")
    (path / "manifest.json").write_bytes(image.manifest)
    for digest, content in image.blobs.items():
        (path / digest.partition(":")[2]).write_bytes(content)
    for number, signature in enumerate(signatures, 1):
        (path / f"signature-{number}").write_bytes(signature)
    return path


def signed_by(key: Path, **transports: Any) -> dict[str, Any]:
    demand = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(key)}]
    return {"default": REJECT, "transports": {"docker": {"registry.example": demand}, **transports}}


def test_a_dir_brings_the_signatures_that_its_name_needs(tmp_path: Path, ring: tuple[Gpg, str, Path]) -> None:
    gpg, key, public = ring
    image = make_image([[file("a")]])
    path = write_dir(tmp_path / "d", image, gpg.sign(payload(image.digest, NAME), key))

    async def body(images: Images) -> None:
        [loaded] = await load_images(images, path, name=NAME)
        assert loaded.names == (NAME,)
        await judge_local(images, loaded.image, ImageSpec(image=NAME))

    run_judged(tmp_path, signed_by(public, dir={"": ACCEPT}), body)

    async def again(images: Images) -> None:
        [kept] = images.rows.all()
        await judge_local(images, kept, ImageSpec(image=NAME))

    run_judged(tmp_path, signed_by(public), again)


@pytest.mark.parametrize("what", ["none", "other name", "other image", "nonsense"])
def test_a_dir_without_the_right_signature_is_refused_and_leaves_nothing(
    tmp_path: Path, ring: tuple[Gpg, str, Path], what: str
) -> None:
    gpg, key, public = ring
    image = make_image([[file("a")]])
    signatures = {
        "none": (),
        "other name": (gpg.sign(payload(image.digest, "registry.example/team/other:v1"), key),),
        "other image": (gpg.sign(payload("sha256:" + "0" * 64, NAME), key),),
        "nonsense": (b"nonsense",),
    }[what]
    path = write_dir(tmp_path / "d", image, *signatures)

    async def body(images: Images) -> None:
        with pytest.raises(Denied, match="signedBy"):
            await load_images(images, path, name=NAME)
        assert images.rows.all() == []
        assert images.layers.names() == set()

    run_judged(tmp_path, signed_by(public, dir={"": ACCEPT}), body)


def test_a_preloaded_dir_is_called_as_its_name_spells(tmp_path: Path, ring: tuple[Gpg, str, Path]) -> None:
    gpg, key, public = ring
    image = make_image([[file("a")]])
    there = tmp_path / "preload"
    write_dir(there / SPELT, image, gpg.sign(payload(image.digest, NAME), key))
    write_dir(there / "registry.example%2Fteam%2Funsigned:v1", make_image([[file("b")]]))
    write_dir(there / "plain", make_image([[file("c")]]))

    async def body(images: Images) -> None:
        await Preload(images, there).look()
        assert sorted(each.names for each in images.rows.all()) == [(), (NAME,)]

    run_judged(tmp_path, signed_by(public, dir={"": ACCEPT}), body)


@pytest.mark.parametrize("way", ["load", "preload"])
@pytest.mark.parametrize(
    ("transports", "passes"),
    [
        ({}, False),
        ({"docker-archive": {"": ACCEPT}}, False),
        ({"docker": {"": ACCEPT}}, False),
        ({"docker-archive": {"": ACCEPT}, "docker": {"registry.example/team": ACCEPT}}, True),
        ({"docker-archive": {"": ACCEPT}, "docker": {"registry.example": ACCEPT, "registry.example/team/app": REJECT}}, False),
        ({"docker-archive": {"": REJECT}, "docker": {"": ACCEPT}}, False),
    ],
)
def test_both_ways_ask_both_questions(tmp_path: Path, way: str, transports: dict[str, Any], passes: bool) -> None:
    there = tmp_path / "preload"
    there.mkdir()
    write_docker_archive(there / "a.tar", {NAME: make_image([[file("a")]])})

    async def body(images: Images) -> None:
        if way == "preload":
            await Preload(images, there).look()
        elif passes:
            await load_images(images, there / "a.tar")
        else:
            with pytest.raises(Denied):
                await load_images(images, there / "a.tar")
        assert [each.names for each in images.rows.all()] == ([(NAME,)] if passes else [])

    run_judged(tmp_path, {"default": REJECT, "transports": transports}, body)


def test_an_image_without_a_name_is_asked_about_when_it_runs(tmp_path: Path) -> None:
    path = write_dir(tmp_path / "d", make_image([[file("a")]]))

    async def body(images: Images) -> None:
        [loaded] = await load_images(images, path)
        with pytest.raises(Denied):
            await judge_local(images, loaded.image, ImageSpec(image=loaded.image.id))

    run_judged(tmp_path, {"default": REJECT, "transports": {"dir": {"": ACCEPT}}}, body)


def test_a_layout_is_its_own_transport(tmp_path: Path) -> None:
    path = write_oci_layout(tmp_path / "layout", {NAME: make_image([[file("a")]])})

    async def body(images: Images) -> None:
        with pytest.raises(Denied, match="oci images"):
            await load_images(images, path)

    run_judged(tmp_path, {"default": ACCEPT, "transports": {"oci": {str(tmp_path): REJECT}}}, body)
