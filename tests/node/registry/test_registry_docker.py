"""The client against Debian's docker-registry; images by our own pusher and by skopeo."""

import json
import os
import subprocess

import pytest
from support.asking import ask
from support.images import (
    Image,
    busybox_image,
    busybox_layer,
    file,
    make_image,
    make_index,
    push,
    write_docker_archive,
    write_oci_archive,
)
from support.registry import IDENTITY_TOKEN, PASSWORD, USERNAME, run_registry

from criollo.errors import NotFound, Unauthenticated, Unavailable
from criollo.oci.digest import Digest
from criollo.oci.image_spec import Index, check_layers, compression_of, decode_config, decode_manifest
from criollo.oci.platform import Platform, select
from criollo.oci.reference import Reference
from criollo.registry.auth import Credentials
from criollo.registry.hosts import Hosts

pytestmark = pytest.mark.node

ALICE = Credentials(username=USERNAME, password=PASSWORD)


@pytest.fixture(scope="module")
def plain():
    with run_registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def behind_password():
    with run_registry("basic") as registry:
        push(registry, "team/app", "v1", make_image([[file("a", "b")]]))
        yield registry


@pytest.fixture(scope="module")
def behind_tokens():
    with run_registry("token") as registry:
        push(registry, "team/app", "v1", make_image([[file("a", "b")]]))
        yield registry


@pytest.fixture
def hosts(tmp_path):
    def load(registry):
        conf = tmp_path / "registries.conf"
        conf.write_text(registry.registries_conf())
        return Hosts.load(conf)

    return load


def fetch_manifest(hosts, text, credentials=None):
    return ask(hosts, lambda client: client.manifest(Reference.parse(text), credentials))


async def fetch_blob(client, ref, descriptor, credentials=None):
    sink = os.memfd_create("sink")
    try:
        await client.blob(ref, descriptor, sink, credentials)
        return os.pread(sink, descriptor.size + 1, 0)
    finally:
        os.close(sink)


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_an_image_comes_back_as_it_was_pushed(plain, hosts, docker, compression):
    image = make_image([[file("a", "b" * 5000)], [file("c", "d")]], docker=docker, compression=compression)
    push(plain, f"kinds/{compression}-{docker}".lower(), "v1", image)
    ref = Reference.parse(plain.reference(f"kinds/{compression}-{docker}".lower(), "v1"))

    async def work(client):
        found = await client.manifest(ref)
        manifest = decode_manifest(found.raw, found.media_type)
        config = await fetch_blob(client, ref, manifest.config)
        return found, manifest, config, [await fetch_blob(client, ref, layer) for layer in manifest.layers]

    found, manifest, config, layers = ask(hosts(plain), work)
    assert (found.raw, found.digest, found.media_type) == (image.manifest, image.digest, image.media_type)
    assert Digest.of(config).hex == image.id
    assert layers == [layer.blob for layer in image.layers]
    assert [compression_of(layer.media_type) for layer in manifest.layers] == [compression, compression]
    decoded = decode_config(config)
    check_layers(manifest, decoded)
    assert list(decoded.rootfs.diff_ids) == image.diff_ids


@pytest.mark.parametrize("docker", [False, True])
def test_the_platform_of_an_index_is_chosen(plain, hosts, docker):
    images = [
        make_image([[file("arch", text)]], docker=docker, platform={"os": "linux", "architecture": text})
        for text in ("arm64", "amd64")
    ]
    name = f"index/{docker}".lower()
    push(plain, name, "v1", make_index(images, docker=docker, attestation=True))
    index = decode_manifest(fetch_manifest(hosts(plain), plain.reference(name, "v1")).raw)
    assert isinstance(index, Index)
    chosen = select(Platform(os="linux", architecture="amd64"), index.manifests)
    assert chosen.digest == images[1].digest
    again = fetch_manifest(hosts(plain), f"{plain.host}/{name}@{chosen.digest}")
    assert again.raw == images[1].manifest


def test_a_blob_streams_into_a_pipe(plain, hosts):
    image = busybox_image()
    push(plain, "library/busybox", "latest", image)
    ref = Reference.parse(plain.reference("library/busybox"))
    layer = decode_manifest(image.manifest).layers[0]
    reading, writing = os.pipe()

    async def work(client):
        try:
            await client.blob(ref, layer, writing)
        finally:
            os.close(writing)

    with subprocess.Popen(["sha256sum"], stdin=reading, stdout=subprocess.PIPE) as reader:
        os.close(reading)
        ask(hosts(plain), work)
        assert reader.stdout.read().split()[0].decode() == layer.digest.hex


def test_what_skopeo_pushed_is_read(plain, hosts, tmp_path):
    image = busybox_image()
    archive = write_docker_archive(tmp_path / "image.tar", {"example.com/app:v1": image})
    target = f"docker://{plain.reference('skopeo/app', 'v1')}"
    argv = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}", target]
    subprocess.run(argv, check=True, capture_output=True)
    found = fetch_manifest(hosts(plain), plain.reference("skopeo/app", "v1"))
    assert decode_manifest(found.raw, found.media_type).config.digest.hex == image.id


def test_skopeo_reads_what_the_test_tools_write(tmp_path):
    image = make_image([busybox_layer()], compression="zstd")
    archive = write_oci_archive(tmp_path / "image.tar", {"v1": image})
    argv = ["skopeo", "inspect", "--format", "{{.Digest}}", f"oci-archive:{archive}:v1"]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == image.digest


def test_an_absent_tag_is_not_found(plain, hosts):
    with pytest.raises(NotFound, match=r"absent/app:v1 not found.*unknown"):
        fetch_manifest(hosts(plain), plain.reference("absent/app", "v1"))


def test_a_password_opens_its_registry(behind_password, hosts):
    text = behind_password.reference("team/app", "v1")
    assert fetch_manifest(hosts(behind_password), text, ALICE).raw
    with pytest.raises(Unauthenticated, match="wants a user and password"):
        fetch_manifest(hosts(behind_password), text)
    with pytest.raises(Unauthenticated, match="refuses the credentials"):
        fetch_manifest(hosts(behind_password), text, Credentials(username=USERNAME, password="wrong"))


def test_an_auth_file_opens_its_registry(behind_password, hosts, tmp_path):
    path = tmp_path / "auth.json"
    entry = {"username": USERNAME, "password": PASSWORD}
    path.write_text(json.dumps({"auths": {f"{behind_password.host}/team": entry}}))
    ref = Reference.parse(behind_password.reference("team/app", "v1"))

    assert ask(hosts(behind_password), lambda client: client.manifest(ref), auth_paths=[path]).raw


@pytest.mark.parametrize("credentials", [ALICE, Credentials(identity_token=IDENTITY_TOKEN)])
def test_a_token_opens_its_registry(behind_tokens, hosts, credentials):
    ref = Reference.parse(behind_tokens.reference("team/app", "v1"))

    async def work(client):
        found = await client.manifest(ref, credentials)
        return await fetch_blob(client, ref, decode_manifest(found.raw).config, credentials)

    before = len(behind_tokens.tokens.requests)
    assert decode_config(ask(hosts(behind_tokens), work))
    asked = behind_tokens.tokens.requests[before:]
    assert [request[1]["scope"] for request in asked] == [["repository:team/app:pull"]]


def test_a_registry_token_is_used_as_it_is(behind_tokens, hosts):
    token = behind_tokens.tokens.sign(USERNAME, "team/app", ["pull"])
    text = behind_tokens.reference("team/app", "v1")
    assert fetch_manifest(hosts(behind_tokens), text, Credentials(registry_token=token)).raw
    with pytest.raises(Unauthenticated, match="get a new one"):
        fetch_manifest(hosts(behind_tokens), text, Credentials(registry_token="x.y.z"))


def test_anonymous_tokens_work_where_the_server_gives_them(behind_tokens, hosts):
    text = behind_tokens.reference("team/app", "v1")
    with pytest.raises(Unauthenticated, match="refuses anonymous access"):
        fetch_manifest(hosts(behind_tokens), text)
    behind_tokens.tokens.is_open = True
    try:
        assert fetch_manifest(hosts(behind_tokens), text).raw
    finally:
        behind_tokens.tokens.is_open = False


def test_tls_is_verified_unless_the_host_is_marked(hosts, tmp_path, monkeypatch):
    with run_registry(tls=True) as registry:
        image: Image = make_image([[file("a", "b")]])
        push(registry, "team/app", "v1", image)
        text = registry.reference("team/app", "v1")
        assert fetch_manifest(hosts(registry), text).raw == image.manifest
        with pytest.raises(Unavailable, match="its certificate is refused"):
            fetch_manifest(Hosts(), text)
        monkeypatch.setenv("SSL_CERT_FILE", str(registry.ca))
        assert fetch_manifest(Hosts(), text).raw == image.manifest


def test_a_registry_that_died_is_unavailable(hosts):
    with run_registry() as registry:
        push(registry, "team/app", "v1", make_image([[file("a", "b")]]))
        registry.stop()
        with pytest.raises(Unavailable, match="connection refused"):
            fetch_manifest(hosts(registry), registry.reference("team/app", "v1"))
