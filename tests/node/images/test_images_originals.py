"""A `dir` keeps the signatures of an image whose bytes can be made again; gpg signs, skopeo is the second opinion."""

import json
import os
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.image_store import run_judged
from support.images import file, make_image, make_index, write_docker_archive, write_oci_layout
from support.signing import SIGSTORE, Gpg, SigstoreKey, payload

from criollo.errors import Denied
from criollo.images.context import Images
from criollo.images.load import load_images
from criollo.images.save import Shape, save_images
from criollo.oci.digest import Digest
from criollo.oci.signature import sigstore

pytestmark = pytest.mark.node

NAME = "registry.example/team/app:v1"
ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]


def run(root: Path, public: Path | None, body: Callable[[Images], Coroutine[object, object, None]]) -> None:
    """`body` with a store of its own; with a key, every name needs its signature."""
    demand = ACCEPT if public is None else [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(public)}]
    policy: dict[str, Any] = {"default": REJECT, "transports": {"docker": {"": demand}, "dir": {"": ACCEPT}}}
    if public is None:
        policy["default"] = ACCEPT

    root.mkdir(exist_ok=True)
    run_judged(root, policy, body)


def skopeo(*words: object, home: Path | None = None, policy: Path | None = None) -> str:
    trust = ["--insecure-policy"] if policy is None else ["--policy", str(policy)]
    environment = os.environ if home is None else {**os.environ, "GNUPGHOME": str(home)}
    argv = ["skopeo", *trust, *map(str, words)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def saved_by_us(tmp_path: Path, compression: str = "none") -> Path:
    """A dir whose layers are as we pack them, in this dress."""

    async def body(images: Images) -> None:
        made = write_docker_archive(tmp_path / "a.tar", {NAME: make_image([[file("a", "x" * 5000)], [file("b")]])})
        await load_images(images, made)
        await save_images(images, [NAME], tmp_path / "first", Shape("dir"))

    run(tmp_path / "maker", None, body)
    if compression == "none":
        return tmp_path / "first"
    return repacked(tmp_path / "first", tmp_path / "repacked", compression)


def repacked(source: Path, target: Path, compression: str) -> Path:
    """The same layers, compressed as we compress them."""
    from criollo.workers.deflate import compressor

    target.mkdir()
    manifest = json.loads((source / "manifest.json").read_bytes())
    for layer in manifest["layers"]:
        squeeze = compressor(compression)
        blob = squeeze.compress((source / layer["digest"][7:]).read_bytes()) + squeeze.flush()
        layer |= {"mediaType": f"{layer['mediaType']}+{compression}", "digest": str(Digest.of(blob)), "size": len(blob)}
        (target / layer["digest"][7:]).write_bytes(blob)
    config = manifest["config"]["digest"][7:]
    (target / config).write_bytes((source / config).read_bytes())
    (target / "manifest.json").write_text(json.dumps(manifest, indent=3))
    (target / "version").write_bytes((source / "version").read_bytes())
    return target


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_dir_that_is_saved_has_the_signatures_it_was_loaded_with(
    tmp_path: Path, ring: tuple[Gpg, str, Path], compression: str
) -> None:
    gpg, key, public = ring
    source = saved_by_us(tmp_path, compression)
    digest = str(Digest.of((source / "manifest.json").read_bytes()))
    attached = SigstoreKey.ecdsa().sign(payload(digest, NAME, SIGSTORE))
    other = sigstore(attached.payload, media_type=attached.media_type, annotations=dict(attached.annotations))
    (source / "signature-1").write_bytes(gpg.sign(payload(digest, NAME), key))
    (source / "signature-2").write_bytes(other.to_blob())

    async def body(images: Images) -> None:
        await load_images(images, source, name=NAME)
        [saved] = await save_images(images, [NAME], tmp_path / "again", Shape("dir"))
        assert saved.note == ""

    run(tmp_path / "node", public, body)
    theirs, ours = contents(source), contents(tmp_path / "again")
    assert {name: content for name, content in ours.items() if "signature" not in name} == {
        name: content for name, content in theirs.items() if "signature" not in name
    }
    assert {ours["signature-1"], ours["signature-2"]} == {theirs["signature-1"], theirs["signature-2"]}

    async def elsewhere(images: Images) -> None:
        [loaded] = await load_images(images, tmp_path / "again", name=NAME)
        assert loaded.image.manifest_digest == digest

    run(tmp_path / "other", public, elsewhere)
    rule = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(public)}
    identity = {"signedIdentity": {"type": "exactReference", "dockerReference": NAME}}
    policy = {"default": REJECT, "transports": {"dir": {"": [{**rule, **identity}]}}}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    skopeo("copy", "-q", f"dir:{tmp_path}/again", f"dir:{tmp_path}/checked", policy=tmp_path / "policy.json")


def test_signatures_that_fit_nothing_are_left_out_and_told(tmp_path: Path, ring: tuple[Gpg, str, Path]) -> None:
    gpg, key, public = ring
    image = make_image([[file("a")], [file("b")]])
    skopeo("copy", "-q", f"oci:{write_oci_layout(tmp_path / 'layout', {'x': image})}:x", f"dir:{tmp_path}/theirs")
    (tmp_path / "theirs/signature-1").write_bytes(gpg.sign(payload(image.digest, NAME), key))

    async def body(images: Images) -> None:
        await load_images(images, tmp_path / "theirs", name=NAME)
        [saved] = await save_images(images, [NAME], tmp_path / "ours", Shape("dir"))
        assert "signatures (1)" in saved.note
        [plain] = await save_images(images, [NAME], tmp_path / "oci", Shape("oci-dir"))
        assert plain.note == ""

    run(tmp_path / "node", public, body)
    ours = contents(tmp_path / "ours")
    layers = json.loads(ours["manifest.json"])["layers"]
    assert len(ours) == 3 + len(layers)
    assert not [name for name in ours if name.startswith("signature")]


@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_what_skopeo_signed_on_the_way_into_a_dir_is_loaded(tmp_path: Path, ring: tuple[Gpg, str, Path], form: str) -> None:
    gpg, key, public = ring
    if form == "oci":
        write_oci_layout(tmp_path / "source", {"x": make_image([[file("a")]])})
    else:
        write_docker_archive(tmp_path / "source", {NAME: make_image([[file("a")]])})
    source = f"{form}:{tmp_path}/source"
    signed = ("--sign-by", key, "--sign-identity", NAME)
    skopeo("copy", "-q", *signed, source, f"dir:{tmp_path}/signed", home=gpg.home)
    skopeo("copy", "-q", source, f"dir:{tmp_path}/unsigned")

    async def body(images: Images) -> None:
        [loaded] = await load_images(images, tmp_path / "signed", name=NAME)
        assert loaded.names == (NAME,)
        images.rows.remove(loaded.image.id)
        for path, name in ((tmp_path / "signed", "registry.example/team/other:v1"), (tmp_path / "unsigned", NAME)):
            with pytest.raises(Denied, match="signedBy"):
                await load_images(images, path, name=name)
        assert images.rows.all() == []

    run(tmp_path / "node", public, body)


def test_of_an_index_that_skopeo_signed_the_own_platform_is_loaded(tmp_path: Path, ring: tuple[Gpg, str, Path]) -> None:
    gpg, key, public = ring
    index = make_index(
        [make_image([[file("a")]]), make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})]
    )
    write_oci_layout(tmp_path / "source", {"x": index})
    skopeo(
        *("copy", "-q", "--all", "--sign-by", key, "--sign-identity", NAME, f"oci:{tmp_path}/source", f"dir:{tmp_path}/signed"),
        home=gpg.home,
    )

    async def body(images: Images) -> None:
        [loaded] = await load_images(images, tmp_path / "signed", name=NAME)
        assert loaded.image.manifest_digest == index.images[0].digest

    run(tmp_path / "node", public, body)
