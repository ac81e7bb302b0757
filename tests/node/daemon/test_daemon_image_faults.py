"""Pulls that go wrong: registries that lie, stall and break off, hostile layers, policies, full disks. Nothing is left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.bad_registry import (
    BadRegistry,
    Fault,
    Reply,
    cut_after,
    cut_at_once,
    endless,
    extra,
    flip,
    hang_after,
    headers,
    redirect,
    run_bad_registry,
    status,
)
from support.daemon import Daemon, place, running_daemon
from support.image_node import images, layers, no_images_left, nothing_left, pull, refused, registries_conf, remove
from support.images import (
    OCI_INDEX,
    OCI_MANIFEST,
    Entry,
    Image,
    Layer,
    busybox_image,
    char_device,
    digest_of,
    directory,
    file,
    hardlink,
    make_image,
    make_layer,
    manifest_of,
    opaque,
    push,
    symlink,
    tar_of,
    whiteout,
)
from support.registry import DEAD_HOST, Registry

pytestmark = pytest.mark.node

PROGRESS_S = 10
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def bad() -> Iterator[BadRegistry]:
    with run_bad_registry() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(registry: Registry, bad: BadRegistry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    before = leaks.snapshot()
    directory = Path(tmp_path_factory.mktemp("node"))
    settings = {"crio.image.pull_progress_timeout": f"{PROGRESS_S}s"}
    with running_daemon(directory, registries=registries_conf(registry, bad), settings=settings) as running:
        pull(running, registry.reference("busybox"))
        remove(running, registry.reference("busybox"))
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture(autouse=True)
def store_is_empty_again(request: pytest.FixtureRequest) -> Iterator[None]:
    if "daemon" not in request.fixturenames:
        yield
        return
    with no_images_left(request.getfixturevalue("daemon")):
        yield


@pytest.fixture
def repository(request: pytest.FixtureRequest, bad: BadRegistry) -> str:
    """A repository of this test alone, with a good image of two layers, `v1`."""
    name = f"r{digest_of(request.node.name.encode())[7:19]}"
    bad.add(name, "v1", good())
    return name


def good() -> Image:
    return make_image([[file("base", "base" * 1000)], [file("top", os.urandom(100_000).hex())]], compression="none")


def top_blob(bad: BadRegistry, repository: str) -> str:
    """The path of the upper layer's blob."""
    manifest = json.loads(bad.whole(f"/v2/{repository}/manifests/v1"))
    return f"/v2/{repository}/blobs/{manifest['layers'][-1]['digest']}"


def config_blob(bad: BadRegistry, repository: str) -> str:
    manifest = json.loads(bad.whole(f"/v2/{repository}/manifests/v1"))
    return f"/v2/{repository}/blobs/{manifest['config']['digest']}"


def shorter() -> Fault:
    """An honest length of less than the whole."""

    def fault(handler: Any, reply: Reply) -> Reply:
        body = reply.body[:-10]
        return Reply(200, reply.headers, body, body).with_headers(Content_Length=str(len(body)))

    return fault


# Blobs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (flip(), ""),  # the digest or the tar header, whichever is known first
        (flip(150_000), "push the image again"),
        (extra(), "its descriptor says"),
        (extra(chunked=True), "more than the 204800 bytes"),
        (shorter(), "its descriptor says"),
        (endless(bytes(1 << 16)), "more than the 204800 bytes"),
    ],
    ids=["first byte", "late byte", "longer", "longer in chunks", "shorter", "endless"],
)
def test_a_blob_that_is_not_what_it_should_be_is_data_loss(
    daemon: Daemon, bad: BadRegistry, repository: str, fault: Fault, said: str
) -> None:
    bad.break_at(top_blob(bad, repository), fault)
    told = refused(daemon, bad.reference(repository, "v1"), Code.DATA_LOSS)
    assert said in told
    assert bad.host in told
    nothing_left(daemon)


def test_a_config_that_is_not_what_it_should_be_is_data_loss(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(config_blob(bad, repository), flip())
    refused(daemon, bad.reference(repository, "v1"), Code.DATA_LOSS)
    nothing_left(daemon)


def test_a_cut_blob_is_resumed_where_it_broke(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(top_blob(bad, repository), cut_after(100_000), times=1)
    assert pull(daemon, bad.reference(repository, "v1"))
    asked = [request.headers.get("range", "") for request in bad.asked(top_blob(bad, repository))]
    assert asked == ["", "bytes=100000-"]
    assert len(layers(daemon)) == 2


@pytest.mark.parametrize(
    "fault",
    [status(500), status(503), status(429, Retry_After="1"), cut_at_once(), cut_after(0)],
    ids=["500", "503", "429", "cut at once", "cut before the body"],
)
@pytest.mark.parametrize("part", ["manifests/v1", "blobs/"])
def test_a_passing_failure_is_not_noticed(daemon: Daemon, bad: BadRegistry, repository: str, part: str, fault: Fault) -> None:
    bad.break_at(f"/v2/{repository}/{part}", fault, times=1)
    assert pull(daemon, bad.reference(repository, "v1"))


def test_a_registry_that_goes_on_failing_is_unavailable_and_the_next_try_gets_the_rest(
    daemon: Daemon, bad: BadRegistry, repository: str
) -> None:
    bad.break_at(top_blob(bad, repository), status(503), times=4)
    told = refused(daemon, bad.reference(repository, "v1"), Code.UNKNOWN)
    assert told.startswith("RegistryUnavailable: ")
    assert "503" in told
    assert images(daemon) == []
    seen = len(bad.requests)
    assert pull(daemon, bad.reference(repository, "v1"))
    again = [request.path for request in bad.requests[seen:] if "/blobs/" in request.path]
    assert again == [config_blob(bad, repository), top_blob(bad, repository)]


def test_a_stalling_registry_ends_at_the_progress_limit(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(top_blob(bad, repository), hang_after(1000), times=1)
    told = refused(daemon, bad.reference(repository, "v1"), Code.DEADLINE_EXCEEDED)
    assert f"no byte arrived for {PROGRESS_S} s" in told
    assert os.listdir(daemon.root / "staging") == []
    assert pull(daemon, bad.reference(repository, "v1"))


# Documents ------------------------------------------------------------------------------------------------------------


def index_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}).encode()


def manifest_with(**changed: Any) -> bytes:
    return json.dumps({**json.loads(good().manifest), **changed}).encode()


def deep(levels: int) -> bytes:
    return b'{"schemaVersion":2,"annotations":' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


SCHEMA1 = json.dumps({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": [], "signatures": []}).encode()
ENTRY = {"mediaType": OCI_MANIFEST, "digest": digest_of(b""), "size": 10}


@pytest.mark.parametrize(
    ("media_type", "manifest", "code", "said"),
    [
        ("application/vnd.acme.thing", manifest_with(mediaType="application/vnd.acme.thing"), Code.UNIMPLEMENTED, "acme.thing"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", SCHEMA1, Code.UNIMPLEMENTED, "skopeo copy"),
        ("application/json", SCHEMA1, Code.UNIMPLEMENTED, "schema 1"),
        (OCI_MANIFEST, manifest_with(config={**ENTRY, "mediaType": "x", "size": 5 << 20}), Code.INVALID_ARGUMENT, "at most"),
        (OCI_MANIFEST, b"<html>sign in</html>", Code.INVALID_ARGUMENT, "manifest"),
        (OCI_MANIFEST, b"", Code.INVALID_ARGUMENT, "manifest"),
        (OCI_MANIFEST, manifest_with(schemaVersion=3), Code.INVALID_ARGUMENT, "schemaVersion"),
        (OCI_MANIFEST, manifest_with(layers=[ENTRY] * 1001), Code.INVALID_ARGUMENT, "at most 1000"),
        (OCI_MANIFEST, manifest_with(layers=[{**ENTRY, "size": -1}]), Code.INVALID_ARGUMENT, "size"),
        (OCI_MANIFEST, manifest_with(layers=[{**ENTRY, "digest": "sha256:../../x"}]), Code.INVALID_ARGUMENT, "digest"),
        (OCI_MANIFEST, manifest_with(manifests=[]), Code.INVALID_ARGUMENT, "both"),
        (OCI_MANIFEST, deep(100_000), Code.INVALID_ARGUMENT, "manifest"),
        (OCI_MANIFEST, b'{"schemaVersion":2,"schemaVersion":2}', Code.INVALID_ARGUMENT, "schemaVersion"),
        (OCI_INDEX, index_of(*[ENTRY] * 1001), Code.INVALID_ARGUMENT, "at most 1000"),
        (OCI_INDEX, index_of(), Code.NOT_FOUND, "linux/amd64"),
        (OCI_MANIFEST, b" " * (4 << 20) + b"{}", Code.INVALID_ARGUMENT, "at most 4194304 bytes"),
    ],
    ids=[
        *(
            "unknown type",
            "schema 1",
            "schema 1 as JSON",
            "artifact with a large config",
            "html",
            "empty",
            "version",
            "many layers",
            "negative size",
        ),
        *("path as digest", "two shapes", "deep", "twice a key", "many entries", "no entry", "large"),
    ],
)
def test_a_document_that_is_no_image_is_refused_by_what_is_wrong(
    daemon: Daemon, bad: BadRegistry, repository: str, media_type: str, manifest: bytes, code: grpc.StatusCode, said: str
) -> None:
    bad.add_manifest(repository, "odd", media_type, manifest)
    assert said in refused(daemon, bad.reference(repository, "odd"), code)
    nothing_left(daemon)


def test_indexes_of_indexes_end(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    inner = index_of({**ENTRY, "digest": good().digest})
    for _ in range(3):
        bad.add_manifest(repository, digest_of(inner), OCI_INDEX, inner)
        inner = index_of({"mediaType": OCI_INDEX, "digest": digest_of(inner), "size": len(inner)})
    bad.add_manifest(repository, "nested", OCI_INDEX, inner)
    assert "at most 2 levels" in refused(daemon, bad.reference(repository, "nested"), Code.INVALID_ARGUMENT)


def test_an_endless_manifest_ends_at_its_limit(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(f"/v2/{repository}/manifests/", endless())
    assert "at most 4194304 bytes" in refused(daemon, bad.reference(repository, "v1"), Code.INVALID_ARGUMENT)


def test_a_manifest_that_is_not_what_its_digest_says_is_data_loss(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(f"/v2/{repository}/manifests/", headers(Docker_Content_Digest=digest_of(b"other")))
    refused(daemon, bad.reference(repository, "v1"), Code.DATA_LOSS)
    bad.add_manifest(repository, digest_of(b"other"), OCI_MANIFEST, good().manifest)
    refused(daemon, f"{bad.host}/{repository}@{digest_of(b'other')}", Code.DATA_LOSS)


def test_a_redirect_loop_ends(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.break_at(f"/v2/{repository}/manifests/", redirect(f"/v2/{repository}/manifests/v1"))
    assert "over 10 redirects" in refused(daemon, bad.reference(repository, "v1"), Code.UNKNOWN)


def with_diff_ids(image: Image, diff_ids: Sequence[str]) -> Image:
    config = json.loads(image.config)
    config["rootfs"]["diff_ids"] = list(diff_ids)
    raw = json.dumps(config).encode()
    return Image(manifest_of(raw, image.layers), OCI_MANIFEST, raw, image.layers, image.platform)


def test_a_config_that_counts_other_layers_is_refused(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    image = good()
    for diff_ids in (image.diff_ids[:1], [*image.diff_ids, image.diff_ids[0]]):
        bad.add(repository, "counts", with_diff_ids(image, diff_ids))
        assert "diff_ids" in refused(daemon, bad.reference(repository, "counts"), Code.INVALID_ARGUMENT)
    nothing_left(daemon)


def test_a_layer_that_unpacks_to_something_else_is_data_loss(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    image = good()
    bad.add(repository, "other", with_diff_ids(image, [image.diff_ids[0], digest_of(b"other")]))
    told = refused(daemon, bad.reference(repository, "other"), Code.DATA_LOSS)
    assert "its config says" in told
    nothing_left(daemon)


def test_a_layer_nobody_can_unpack_is_refused_before_anything_is_fetched(
    daemon: Daemon, bad: BadRegistry, repository: str
) -> None:
    plain = good().layers[0]
    encrypted = Layer(plain.blob, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", plain.diff_id)
    bad.add(repository, "encrypted", make_image([plain, encrypted]))
    assert "since the layer is encrypted" in refused(daemon, bad.reference(repository, "encrypted"), Code.INVALID_ARGUMENT)
    assert not bad.asked(f"/v2/{repository}/blobs/{plain.digest}")


# Hostile layers -------------------------------------------------------------------------------------------------------


def escapes(canary: Path) -> dict[str, list[Entry]]:
    """Layers that try to reach `canary`, a directory of the host with a file `kept`."""
    up, inside = "../" * 30, str(canary).lstrip("/")
    return {
        "dot dot": [file(f"{up}{inside}/written", "x"), file("a/../../../../../x", "x")],
        "absolute": [file(f"{canary}/written", "x"), file(f"/{up}{inside}/written2", "x")],
        "through a link": [symlink("out", str(canary)), file("out/written", "x"), file("out/kept", "changed")],
        "through a chain": [symlink("a", "b"), symlink("b", f"{up}{inside}"), directory("a"), file("a/written", "x")],
        "hard link out": [hardlink("stolen", f"{up}{inside}/kept"), file("stolen", "changed")],
        "hard link through a link": [symlink("out", str(canary)), hardlink("stolen", "out/kept"), file("stolen", "changed")],
        "whiteout out": [whiteout(f"{up}{inside}/kept"), symlink("out", str(canary)), whiteout("out/kept"), opaque("out")],
        "whiteout of the parent": [Entry(".wh..", mode=0), Entry("a/.wh..", mode=0), Entry(".wh.../x", mode=0)],
        "file over link": [symlink("kept", f"{canary}/kept"), file("kept", "changed")],
        "mode through a link": [symlink("out", str(canary)), directory("out", mode=0o777)],
    }


@pytest.mark.parametrize("name", escapes(Path("/x")))
def test_no_layer_reaches_the_host(daemon: Daemon, bad: BadRegistry, repository: str, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    canary.chmod(0o700)
    (canary / "kept").write_text("kept")
    image = make_image([escapes(canary)[name]], compression="none")
    bad.add(repository, "hostile", image)
    with contextlib.suppress(grpc.RpcError):
        pull(daemon, bad.reference(repository, "hostile"))
    assert [path.name for path in canary.iterdir()] == ["kept"]
    assert (canary / "kept").read_text() == "kept"
    assert (canary / "kept").stat().st_nlink == 1
    assert canary.stat().st_mode & 0o777 == 0o700
    assert pull(daemon, bad.reference(repository, "v1"))


@pytest.mark.parametrize(
    ("blob", "kind"),
    [
        (b"not a tar at all" * 100, "none"),
        (tar_of([file("a", "x" * 5000)])[:2000], "none"),
        (make_layer(tar_of([file("a", "x" * 5000)])).blob[:-20], "gzip"),
        (make_layer(tar_of([file("a", "x" * 5000)]), "zstd").blob[:-5], "zstd"),
        (make_layer(tar_of([file("a", "x")])).blob + b"junk", "gzip"),
    ],
    ids=["no tar", "cut tar", "cut gzip", "cut zstd", "junk after gzip"],
)
def test_a_broken_layer_is_data_loss(daemon: Daemon, bad: BadRegistry, repository: str, blob: bytes, kind: str) -> None:
    suffix = "" if kind == "none" else f"+{kind}"
    layer = Layer(blob, f"application/vnd.oci.image.layer.v1.tar{suffix}", digest_of(b""))
    bad.add(repository, "broken", make_image([layer]))
    refused(daemon, bad.reference(repository, "broken"), Code.DATA_LOSS)
    nothing_left(daemon)


def test_a_device_for_a_passwd_file_is_never_opened(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    bad.add(repository, "device", make_image([[directory("etc"), char_device("etc/passwd", 1, 8), directory("proc")]]))
    pull(daemon, bad.reference(repository, "device"))
    with pytest.raises(grpc.RpcError) as told:
        daemon.create(daemon.run_pod(), daemon.container_config(bad.reference(repository, "device"), "x"))
    assert told.value.code() is Code.INVALID_ARGUMENT
    assert "expected a regular file" in str(told.value.details())


# Who is not there, who may not ----------------------------------------------------------------------------------------


def test_a_dead_registry_is_named(daemon: Daemon) -> None:
    host = DEAD_HOST
    told = refused(daemon, f"{host}/team/app:v1", Code.UNKNOWN)
    assert told.startswith(f"RegistryUnavailable: cannot reach registry {host}: connection refused; check that it runs")


@pytest.mark.parametrize("missing", ["repository", "tag", "digest"])
def test_an_image_nobody_has_is_not_found(daemon: Daemon, registry: Registry, missing: str) -> None:
    name = {"repository": "no/such:v1", "tag": "busybox:no-such", "digest": f"busybox@{digest_of(b'no such')}"}[missing]
    told = refused(daemon, f"{registry.host}/{name}", Code.NOT_FOUND)
    assert f"image {registry.host}/{name} not found" in told


@pytest.mark.parametrize("text", ["", "UPPER", "a//b", "a:b:c", "x@sha256:00", "-x", "a b", "0" * 64, "a" * 300, "http://a/b"])
def test_what_is_no_reference_is_refused(daemon: Daemon, text: str) -> None:
    refused(daemon, text, Code.INVALID_ARGUMENT)


def test_the_policy_refuses_pulls_without_asking_the_registry(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    write_policy(daemon, f"{bad.host}/{repository}")
    daemon.restart()
    try:
        told = refused(daemon, bad.reference(repository, "v1"), Code.UNKNOWN)
        assert told.startswith("SignatureValidationFailed: ")
        assert f"scope '{bad.host}/{repository}'" in told
        assert not bad.asked(f"/v2/{repository}/")
    finally:
        write_policy(daemon)
        daemon.restart()


def test_the_policy_refuses_to_run_what_is_here_already(daemon: Daemon, registry: Registry) -> None:
    push(registry, "denied/app", "v1", busybox_image())
    name, allowed = registry.reference("denied/app", "v1"), registry.reference("busybox")
    image_id = pull(daemon, name)
    write_policy(daemon, f"{registry.host}/denied")
    daemon.restart()
    try:
        for asked in (name, image_id):
            with pytest.raises(grpc.RpcError) as told:
                daemon.create(daemon.run_pod(), daemon.container_config(asked, "true"))
            assert told.value.code() is Code.PERMISSION_DENIED
            assert "rejects it" in str(told.value.details())
        assert pull(daemon, allowed) == image_id  # the same bytes by a name that may
        assert daemon.create(daemon.run_pod(), daemon.container_config(image_id, "true"))
        with pytest.raises(grpc.RpcError, match="rejects it"):
            daemon.create(daemon.run_pod(), daemon.container_config(name, "true"))
    finally:
        write_policy(daemon)
        daemon.restart()


def write_policy(daemon: Daemon, *rejected: str) -> None:
    scopes = {scope: [{"type": "reject"}] for scope in rejected}
    policy = {"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": scopes}}
    (daemon.place / "policy.json").write_text(json.dumps(policy))


# Full disk ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_a_small_disk(bad: BadRegistry, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose root is an ext4 of 40 MiB."""
    with place(tmp_path / "node") as directory:
        daemon = Daemon(directory, registries=registries_conf(bad))
        disk = tmp_path / "disk"
        with disk.open("wb") as sparse:
            sparse.truncate(40 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
        subprocess.run(["mount", "-o", "loop", disk, daemon.root], check=True)
        try:
            yield daemon.start()
            assert daemon.stop() == 0
        finally:
            daemon.stop(signal.SIGKILL)


def test_a_full_disk_is_told_and_mended_by_a_smaller_image(on_a_small_disk: Daemon, bad: BadRegistry, repository: str) -> None:
    daemon = on_a_small_disk
    fits, large = [file("a", bytes(8 << 20))], [file("b", bytes(60 << 20))]
    bad.add(repository, "large", make_image([fits, large]))
    for _ in range(2):
        told = refused(daemon, bad.reference(repository, "large"), Code.RESOURCE_EXHAUSTED)
        assert "No space left on device" in told
        nothing_left(daemon)
    assert images(daemon) == []
    pulled = pull(daemon, bad.reference(repository, "v1"))
    daemon.restart()
    assert [image.id for image in images(daemon)] == [pulled]
    remove(daemon, pulled)
    nothing_left(daemon)


def fill(directory: Path) -> Path:
    """Leave no block free on the file system of `directory`; returns the file that takes them."""
    filler, size = directory / "filler", 1 << 20
    with filler.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_a_full_disk_can_be_emptied_by_removing_images(
    on_a_small_disk: Daemon, bad: BadRegistry, repository: str, restarted: bool
) -> None:
    daemon = on_a_small_disk
    pulled = pull(daemon, bad.reference(repository, "v1"))
    filler = fill(daemon.root)
    if restarted:
        daemon.restart()
    refused(daemon, bad.reference(repository, "v2"), Code.NOT_FOUND)
    remove(daemon, pulled)
    nothing_left(daemon)
    filler.unlink()
    assert pull(daemon, bad.reference(repository, "v1")) == pulled


def test_an_image_that_lost_a_layer_is_pulled_again(daemon: Daemon, bad: BadRegistry, repository: str) -> None:
    pulled = pull(daemon, bad.reference(repository, "v1"))
    daemon.stop()
    shutil.rmtree(layers(daemon)[0])
    daemon.start()
    assert images(daemon) == []
    assert pull(daemon, bad.reference(repository, "v1")) == pulled
    assert len(layers(daemon)) == 2
