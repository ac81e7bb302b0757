"""Encrypted layers, made by skopeo: opened with the private keys of the node, never without."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support import leaks
from support.daemon import Daemon, running_daemon
from support.image_node import layers, pull, refused, remove, status
from support.images import busybox_image, digest_of, file, make_image, push_blob, push_manifest, write_oci_layout
from support.registry import Registry

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo makes the encrypted images"),
]


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys rsa.pem, ec.pem, p521.pem and other.pem with their public halves, and the directory `keys` of the node."""
    place = Path(tmp_path_factory.mktemp("keys"))
    openssl("genrsa", "-out", place / "rsa.pem", "2048")
    openssl("genrsa", "-out", place / "other.pem", "2048")
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", place / "ec.pem")
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", place / "p521.pem")
    for name in ("rsa", "other", "ec", "p521"):
        openssl("pkey", "-in", place / f"{name}.pem", "-pubout", "-out", place / f"{name}.pub")
    (place / "keys").mkdir()
    return place


@pytest.fixture(scope="module")
def daemon(registry: Registry, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    before = leaks.snapshot()
    settings = {"crio.runtime.decryption_keys_path": str(made / "keys")}
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=registry.registries_conf(), settings=settings) as running:
        pull(running, registry.reference("busybox"))
        remove(running, registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def no_keys_and_no_images(daemon: Daemon, made: Path) -> Iterator[None]:
    yield
    for key in (made / "keys").iterdir():
        key.unlink()
    daemon.remove_everything()
    for image in daemon.cri.call("ListImages").images:
        remove(daemon, image.id)
    assert layers(daemon) == []


def give(made: Path, *names: str) -> None:
    for name in names:
        shutil.copy(made / name, made / "keys")


def encrypt(registry: Registry, directory: Path, *recipients: str, compression: str = "gzip") -> str:
    """Push busybox with its layer encrypted for these public keys; its reference."""
    layout = write_oci_layout(directory / "plain", {"v1": busybox_image(compression=compression)})
    name = f"encrypted/{digest_of(os.fsencode(directory) + compression.encode())[7:19]}"
    keys = [word for each in recipients for word in ("--encryption-key", f"jwe:{each}")]
    argv = ["skopeo", "copy", "--dest-tls-verify=false", *keys, f"oci:{layout}:v1", f"docker://{registry.host}/{name}:v1"]
    subprocess.run(argv, check=True, capture_output=True)
    return registry.reference(name, "v1")


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("key", ["rsa", "ec", "p521"])
def test_a_key_of_the_node_opens_the_layer(
    daemon: Daemon, registry: Registry, made: Path, tmp_path: Path, key: str, compression: str
) -> None:
    reference = encrypt(registry, tmp_path, str(made / f"{key}.pub"), compression=compression)
    (made / "keys/notes.txt").write_text("no key")
    give(made, "other.pem", f"{key}.pem")
    assert pull(daemon, reference) == busybox_image(compression=compression).id
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(reference, "sleep", "1000"))
    assert daemon.output(container, "echo", "it runs") == "it runs\n"


def test_any_of_several_recipients_can_open_it(daemon: Daemon, registry: Registry, made: Path, tmp_path: Path) -> None:
    reference = encrypt(registry, tmp_path, str(made / "rsa.pub"), str(made / "ec.pub"))
    give(made, "ec.pem")
    pull(daemon, reference)


def test_without_the_key_it_is_told_and_nothing_is_left(daemon: Daemon, registry: Registry, made: Path, tmp_path: Path) -> None:
    reference = encrypt(registry, tmp_path, str(made / "rsa.pub"))
    told = refused(daemon, reference, grpc.StatusCode.UNIMPLEMENTED)
    assert "none of the 0 private keys" in told
    assert "decryption_keys_path" in told
    give(made, "other.pem", "ec.pem")
    (made / "keys/notes.txt").write_text("no key")
    told = refused(daemon, reference, grpc.StatusCode.UNIMPLEMENTED)
    assert "none of the 2 private keys" in told
    assert "notes.txt" in told
    assert status(daemon, reference) is None
    assert layers(daemon) == []
    assert os.listdir(daemon.root / "staging") == []


def test_a_layer_that_was_changed_is_refused_at_its_end(daemon: Daemon, registry: Registry, made: Path, tmp_path: Path) -> None:
    reference = encrypt(registry, tmp_path, str(made / "rsa.pub"), compression="none")
    give(made, "rsa.pem")
    repository = reference.removeprefix(f"{registry.host}/").removesuffix(":v1")
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"]
    manifest = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)
    annotations = manifest["layers"][0]["annotations"]
    options = json.loads(base64.b64decode(annotations["org.opencontainers.image.enc.pubopts"]))
    options["hmac"] = base64.b64encode(bytes(32)).decode()
    annotations["org.opencontainers.image.enc.pubopts"] = base64.b64encode(json.dumps(options).encode()).decode()
    push_manifest(registry, repository, "v2", manifest["mediaType"], json.dumps(manifest).encode())
    told = refused(daemon, registry.reference(repository, "v2"), grpc.StatusCode.DATA_LOSS)
    assert "HMAC" in told


def test_keys_wrapped_in_another_way_are_named(daemon: Daemon, registry: Registry) -> None:
    image = make_image([[file("a")]])
    manifest = json.loads(image.manifest)
    layer = manifest["layers"][0]
    layer["mediaType"] += "+encrypted"
    layer["annotations"] = {"org.opencontainers.image.enc.keys.pgp": "eA==", "org.opencontainers.image.enc.keys.pkcs7": "eA=="}
    for blob in image.blobs.values():
        push_blob(registry, "encrypted/other", blob)
    push_manifest(registry, "encrypted/other", "v1", manifest["mediaType"], json.dumps(manifest).encode())
    told = refused(daemon, registry.reference("encrypted/other", "v1"), grpc.StatusCode.UNIMPLEMENTED)
    assert "wrapped by pgp, pkcs7, only jwe is read" in told
