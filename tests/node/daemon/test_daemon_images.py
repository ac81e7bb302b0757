"""Images through the socket: pulled from registries of every kind, looked up, listed, removed."""

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.bad_registry import BadRegistry, run_bad_registry
from support.cri import pb
from support.daemon import Daemon, running_daemon, wait_for
from support.image_node import (
    Gate,
    images,
    layers,
    no_images_left,
    nothing_left,
    pull,
    pull_request,
    refused,
    registries_conf,
    remove,
    status,
)
from support.images import (
    Image,
    busybox_image,
    busybox_layer,
    directory,
    file,
    make_image,
    make_index,
    make_layer,
    push,
)
from support.registry import IDENTITY_TOKEN, PASSWORD, USERNAME, Registry, run_registry

pytestmark = pytest.mark.node

PINNED = ["pinned.example/exact:1", "pinned.example/family/*", "*keyword*"]
ARM = {"os": "linux", "architecture": "arm64"}


@pytest.fixture(scope="module")
def behind_password() -> Iterator[Registry]:
    with run_registry("basic") as running:
        push(running, "team/app", "v1", small("behind a password"))
        yield running


@pytest.fixture(scope="module")
def behind_tokens() -> Iterator[Registry]:
    with run_registry("token") as running:
        push(running, "team/app", "v1", small("behind tokens"))
        yield running


@pytest.fixture(scope="module")
def counting() -> Iterator[BadRegistry]:
    """A registry that serves properly and remembers every request."""
    with run_bad_registry() as running:
        yield running


@pytest.fixture(scope="module")
def daemon(
    registry: Registry,
    behind_password: Registry,
    behind_tokens: Registry,
    counting: BadRegistry,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Daemon]:
    before = leaks.snapshot()
    conf = registries_conf(registry, behind_password, behind_tokens, counting)
    settings = {"crio.image.pinned_images": PINNED, "crio.image.pause_image": "pause.example/pause:3"}
    place = Path(tmp_path_factory.mktemp("node"))
    with running_daemon(place, registries=conf, settings=settings) as running:
        pull(running, registry.reference("busybox"))
        remove(running, registry.reference("busybox"))
        yield running
        assert leaks.settled(lambda: connections(running), 60) == {}
    assert leaks.leaked(before) == {}


def connections(running: Daemon) -> dict[str, list[str]]:
    """Connections to registries, which are kept for some seconds only."""
    count = leaks.held_by(running.pid)["tcp"]
    return {"tcp": [f"{count} connections"]} if count else {}


@pytest.fixture(autouse=True)
def store_is_empty_again(daemon: Daemon) -> Iterator[None]:
    with no_images_left(daemon):
        yield


def small(content: str, **options: Any) -> Image:
    """An image with one layer with one file."""
    return make_image([[file("content", content)]], **options)


def content(daemon: Daemon) -> str:
    """The file of the only layer."""
    (layer,) = layers(daemon)
    return (layer / "content").read_text()


def blobs_asked(counting: BadRegistry, repository: str) -> list[str]:
    return [request.path for request in counting.asked(f"/v2/{repository}/blobs/")]


# Pull -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_layers_of_every_kind_are_unpacked(daemon: Daemon, registry: Registry, docker: bool, compression: str) -> None:
    image = small(f"{docker} {compression}", docker=docker, compression=compression)
    digest = push(registry, "kinds", "v1", image)
    assert pull(daemon, registry.reference("kinds", "v1")) == image.id
    assert content(daemon) == f"{docker} {compression}"
    found = status(daemon, image.id)
    assert list(found.repo_tags) == [registry.reference("kinds", "v1")]
    assert list(found.repo_digests) == [f"{registry.host}/kinds@{digest}"]
    assert found.size >= len(image.config) + len(image.manifest)
    assert found.spec.image == registry.reference("kinds", "v1")


def test_a_layer_that_lies_about_its_compression_is_unpacked(daemon: Daemon, counting: BadRegistry) -> None:
    honest = make_layer(busybox_layer(), "none")
    image = make_image([type(honest)(honest.blob, "application/vnd.oci.image.layer.v1.tar+gzip", honest.diff_id)])
    counting.add("liar", "v1", image)
    assert pull(daemon, counting.reference("liar", "v1")) == image.id


def test_an_image_without_layers_is_an_image(daemon: Daemon, registry: Registry) -> None:
    image = make_image([])
    push(registry, "empty", "v1", image)
    assert pull(daemon, registry.reference("empty", "v1")) == image.id
    assert layers(daemon) == []


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_an_index_gives_the_image_for_this_platform_only(daemon: Daemon, counting: BadRegistry, docker: bool) -> None:
    ours, other = small("ours", docker=docker), small("theirs", docker=docker, platform=ARM)
    index = make_index([other, ours], docker=docker, attestation=True)
    repository = "multi-docker" if docker else "multi-oci"
    counting.add(repository, "v1", index)
    assert pull(daemon, counting.reference(repository, "v1")) == ours.id
    assert content(daemon) == "ours"
    name = f"{counting.host}/{repository}"
    assert sorted(status(daemon, ours.id).repo_digests) == sorted(f"{name}@{digest}" for digest in (index.digest, ours.digest))
    assert not counting.asked(f"/v2/{repository}/manifests/{other.digest}")


def test_an_index_without_this_platform_says_what_it_offers(daemon: Daemon, registry: Registry) -> None:
    push(registry, "foreign", "v1", make_index([small("theirs", platform=ARM)], attestation=True))
    told = refused(daemon, registry.reference("foreign", "v1"), grpc.StatusCode.NOT_FOUND)
    assert "linux/amd64" in told
    assert "linux/arm64" in told
    assert "unknown" not in told


def test_a_pull_by_digest_has_no_tag_until_one_is_pulled(daemon: Daemon, registry: Registry) -> None:
    image = small("by digest")
    index = make_index([image])
    push(registry, "digests", "v1", index)
    name = f"{registry.host}/digests"
    assert pull(daemon, f"{name}@{image.digest}") == image.id
    assert (list(status(daemon, image.id).repo_tags), list(status(daemon, image.id).repo_digests)) == (
        [],
        [f"{name}@{image.digest}"],
    )
    assert pull(daemon, f"{name}:ignored@{index.digest}") == image.id
    assert list(status(daemon, image.id).repo_tags) == []
    pull(daemon, f"{name}:v1")
    found = status(daemon, f"{name}@{index.digest}")
    assert list(found.repo_tags) == [f"{name}:v1"]
    assert sorted(found.repo_digests) == sorted(f"{name}@{digest}" for digest in (image.digest, index.digest))


def test_annotations_of_the_request_are_kept(daemon: Daemon, registry: Registry) -> None:
    push(registry, "annotated", "v1", small("annotated"))
    spec = pb.ImageSpec(image=registry.reference("annotated", "v1"), annotations={"a": "b"})
    pulled = daemon.cri.call("PullImage", pb.PullImageRequest(image=spec)).image_ref
    assert dict(status(daemon, pulled).spec.annotations) == {"a": "b"}


def test_a_present_image_costs_one_manifest_request(daemon: Daemon, counting: BadRegistry) -> None:
    image = small("present")
    counting.add("present", "plain", image)
    counting.add("present", "index", make_index([small("other", platform=ARM), image]))
    for tag in ("plain", "index"):
        pull(daemon, counting.reference("present", tag))
        seen = len(counting.requests)
        assert pull(daemon, counting.reference("present", tag)) == image.id
        asked = [request.path for request in counting.requests[seen:]]
        assert asked == [f"/v2/present/manifests/{tag}"]


def test_a_tag_moves_to_what_it_now_names(daemon: Daemon, registry: Registry) -> None:
    old, new = small("old"), small("new")
    tag = registry.reference("moving", "v1")
    push(registry, "moving", "v1", old)
    pull(daemon, tag)
    push(registry, "moving", "v1", new)
    assert pull(daemon, tag) == new.id
    assert list(status(daemon, new.id).repo_tags) == [tag]
    assert list(status(daemon, old.id).repo_tags) == []
    assert list(status(daemon, old.id).repo_digests) == [f"{registry.host}/moving@{old.digest}"]
    assert status(daemon, tag).id == new.id


# Who may ---------------------------------------------------------------------------------------------------------------


def of_auth(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "auth", [{"username": USERNAME, "password": PASSWORD}, {"auth": of_auth(USERNAME, PASSWORD)}], ids=["fields", "encoded"]
)
@pytest.mark.parametrize("kind", ["behind_password", "behind_tokens"])
def test_credentials_of_the_request_open_the_registry(
    request: pytest.FixtureRequest, daemon: Daemon, kind: str, auth: dict[str, str]
) -> None:
    locked: Registry = request.getfixturevalue(kind)
    assert pull(daemon, locked.reference("team/app", "v1"), **auth)
    assert layers(daemon)


def test_an_identity_token_opens_the_registry(daemon: Daemon, behind_tokens: Registry) -> None:
    assert pull(daemon, behind_tokens.reference("team/app", "v1"), identity_token=IDENTITY_TOKEN)


def test_a_registry_token_opens_the_registry(daemon: Daemon, behind_tokens: Registry) -> None:
    assert behind_tokens.tokens is not None
    token = behind_tokens.tokens.sign(USERNAME, "team/app", ["pull"])
    assert pull(daemon, behind_tokens.reference("team/app", "v1"), registry_token=token)


def test_anonymous_tokens_are_enough_where_anybody_may_pull(daemon: Daemon, behind_tokens: Registry) -> None:
    assert behind_tokens.tokens is not None
    image = small("for anybody")
    push(behind_tokens, "open/app", "v1", image)
    behind_tokens.tokens.is_open = True
    try:
        assert pull(daemon, behind_tokens.reference("open/app", "v1")) == image.id
    finally:
        behind_tokens.tokens.is_open = False


@pytest.mark.parametrize("auth", [{}, {"username": USERNAME, "password": "wrong-secret"}], ids=["anonymous", "wrong"])
@pytest.mark.parametrize("kind", ["behind_password", "behind_tokens"])
def test_without_the_right_credentials_the_client_is_told_what_to_give(
    request: pytest.FixtureRequest, daemon: Daemon, kind: str, auth: dict[str, str]
) -> None:
    locked: Registry = request.getfixturevalue(kind)
    told = refused(daemon, locked.reference("team/app", "v1"), grpc.StatusCode.UNAUTHENTICATED, **auth)
    assert "imagePullSecrets" in told
    assert "wrong-secret" not in told + daemon.log()


def test_an_image_pulled_with_credentials_is_no_reason_to_skip_the_registry(daemon: Daemon, behind_password: Registry) -> None:
    reference = behind_password.reference("team/app", "v1")
    pull(daemon, reference, username=USERNAME, password=PASSWORD)
    refused(daemon, reference, grpc.StatusCode.UNAUTHENTICATED)


def test_plain_http_is_not_spoken_to_an_unmarked_registry(daemon: Daemon) -> None:
    with run_bad_registry() as unmarked:
        unmarked.add("team/app", "v1", small("in plain text"))
        told = refused(daemon, unmarked.reference("team/app", "v1"), grpc.StatusCode.UNKNOWN)
        assert told.startswith("RegistryUnavailable: ")
        assert "registries.conf" in told
        assert unmarked.requests == []


# Look up --------------------------------------------------------------------------------------------------------------


def test_an_image_is_found_by_tag_digest_id_and_the_beginning_of_its_id(daemon: Daemon, registry: Registry) -> None:
    image = small("found")
    digest = push(registry, "found", "v1", image)
    pull(daemon, registry.reference("found", "v1"))
    name = f"{registry.host}/found"
    for text in (f"{name}:v1", f"{name}@{digest}", f"{name}:x@{digest}", image.id, f"sha256:{image.id}", image.id[:12]):
        assert status(daemon, text).id == image.id
    for text in (f"{name}:v2", name, "0" * 64, "0" * 12, image.id[:5], "No:Reference:At:All", f"{name}@sha256:{'0' * 64}"):
        assert status(daemon, text) is None


def test_verbose_status_shows_the_images_own_config(daemon: Daemon, registry: Registry) -> None:
    image = small("verbose", config={"Labels": {"who": "me"}, "Cmd": ["x"]})
    push(registry, "verbose", "v1", image)
    pull(daemon, registry.reference("verbose", "v1"))
    spec = pb.ImageSpec(image=image.id)
    answer = daemon.cri.call("ImageStatus", pb.ImageStatusRequest(image=spec, verbose=True))
    info = json.loads(answer.info["info"])
    assert info["labels"] == {"who": "me"}
    assert info["imageSpec"] == json.loads(image.config)
    assert not daemon.cri.call("ImageStatus", pb.ImageStatusRequest(image=spec)).info


def test_lists_and_streams_give_all_or_the_one_asked_for(daemon: Daemon, registry: Registry) -> None:
    made = {tag: small(tag) for tag in ("a", "b")}
    for tag, image in made.items():
        push(registry, "listed", tag, image)
        pull(daemon, registry.reference("listed", tag))
    assert {image.id for image in images(daemon)} == {image.id for image in made.values()}
    only = pb.ImageFilter(image=pb.ImageSpec(image=registry.reference("listed", "a")))
    for wanted, expected in ((None, {made["a"].id, made["b"].id}), (only, {made["a"].id})):
        listed = daemon.cri.call("ListImages", pb.ListImagesRequest(filter=wanted)).images
        streamed = daemon.cri.stream("StreamImages", pb.StreamImagesRequest(filter=wanted))
        assert {image.id for image in listed} == expected
        assert {image.id for part in streamed for image in part.images} == expected
    missing = pb.ImageFilter(image=pb.ImageSpec(image="not.here/at:all"))
    assert list(daemon.cri.call("ListImages", pb.ListImagesRequest(filter=missing)).images) == []


@pytest.mark.parametrize(
    ("user", "uid", "username"),
    [("", None, ""), ("1000", 1000, ""), ("1000:100", 1000, ""), ("alice", None, "alice"), ("alice:users", None, "alice")],
)
def test_user_of_an_image(daemon: Daemon, registry: Registry, user: str, uid: int | None, username: str) -> None:
    push(registry, "user", "v1", small(user, config={"User": user}))
    found = status(daemon, pull(daemon, registry.reference("user", "v1")))
    assert (found.uid.value if found.HasField("uid") else None, found.username) == (uid, username)


def test_pinned_images_are_marked(daemon: Daemon, registry: Registry) -> None:
    push(registry, "team/some-keyword-app", "v1", small("pinned"))
    push(registry, "team/app", "v1", small("free"))
    pinned, free = (pull(daemon, registry.reference(name, "v1")) for name in ("team/some-keyword-app", "team/app"))
    assert {image.id: image.pinned for image in images(daemon)} == {pinned: True, free: False}
    assert status(daemon, pinned).pinned


def test_the_image_filesystem_counts_what_layers_take(daemon: Daemon, registry: Registry) -> None:
    size = 3 << 20
    push(registry, "big", "v1", make_image([[file("a", bytes(size)), file("b"), directory("c")]]))
    empty = daemon.cri.call("ImageFsInfo").image_filesystems[0]
    assert empty.used_bytes.value == 0
    before = time.time_ns()
    pull(daemon, registry.reference("big", "v1"))
    answer = daemon.cri.call("ImageFsInfo")
    for filesystem in (answer.image_filesystems[0], answer.container_filesystems[0]):
        assert size <= filesystem.used_bytes.value < 2 * size
        assert 3 <= filesystem.inodes_used.value <= 5
        assert filesystem.timestamp >= before
        assert os.path.isdir(filesystem.fs_id.mountpoint)


# Remove ---------------------------------------------------------------------------------------------------------------


def test_a_name_goes_alone_while_others_remain(daemon: Daemon, registry: Registry) -> None:
    image = small("two names")
    for tag in ("a", "b"):
        push(registry, "named", tag, image)
        pull(daemon, registry.reference("named", tag))
    remove(daemon, registry.reference("named", "a"))
    assert list(status(daemon, image.id).repo_tags) == [registry.reference("named", "b")]
    assert status(daemon, registry.reference("named", "a")) is None
    remove(daemon, registry.reference("named", "a"))
    remove(daemon, registry.reference("named", "b"))
    assert status(daemon, image.id) is None
    nothing_left(daemon)


def test_a_digest_goes_alone_while_a_name_remains(daemon: Daemon, registry: Registry) -> None:
    image = small("digest and name")
    push(registry, "both", "v1", image)
    pull(daemon, registry.reference("both", "v1"))
    remove(daemon, f"{registry.host}/both@{image.digest}")
    assert list(status(daemon, image.id).repo_digests) == []
    assert list(status(daemon, image.id).repo_tags) == [registry.reference("both", "v1")]


@pytest.mark.parametrize("form", ["{id}", "sha256:{id}", "{id:.12}"])
def test_an_id_takes_all_names_with_it(daemon: Daemon, registry: Registry, form: str) -> None:
    image = small("by id")
    for tag in ("a", "b"):
        push(registry, "ids", tag, image)
        pull(daemon, registry.reference("ids", tag))
    remove(daemon, form.format(id=image.id))
    assert images(daemon) == []
    nothing_left(daemon)


def test_removing_what_is_not_there_is_success(daemon: Daemon) -> None:
    for name in ("not.here/at:all", "0" * 64, "sha256:" + "0" * 64):
        remove(daemon, name)


def test_a_shared_layer_stays_for_the_other_image(daemon: Daemon, registry: Registry) -> None:
    base = [file("base", "shared")]
    first, second = make_image([base]), make_image([base, [file("top", "own")]])
    for tag, image in (("first", first), ("second", second)):
        push(registry, "shared", tag, image)
        pull(daemon, registry.reference("shared", tag))
    assert len(layers(daemon)) == 2
    remove(daemon, second.id)
    (left,) = layers(daemon)
    assert (left / "base").read_text() == "shared"


def test_an_image_in_use_stays_and_may_lose_its_name(daemon: Daemon, registry: Registry) -> None:
    image = busybox_image()
    tag, other = registry.reference("busybox"), registry.reference("busybox", "other")
    push(registry, "busybox", "other", image)
    for name in (tag, other):
        pull(daemon, name)
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(tag, "sleep", "1000"))
    for name in (image.id, image.id[:12]):
        with pytest.raises(grpc.RpcError) as told:
            remove(daemon, name)
        assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert container[:12] in str(told.value.details())
    remove(daemon, tag)
    found = daemon.status(container)
    assert (found.image.image, found.image_id) == (tag, image.id)
    with pytest.raises(grpc.RpcError, match="in use by container"):
        remove(daemon, other)
    assert daemon.output(container, "echo", "still there") == "still there\n"
    daemon.remove_everything()
    remove(daemon, other)
    nothing_left(daemon)


def test_status_of_a_container_survives_the_move_of_its_images_tag(daemon: Daemon, registry: Registry) -> None:
    old = busybox_image(config={"Labels": {"version": "old"}})
    tag = registry.reference("moved", "v1")
    push(registry, "moved", "v1", old)
    pull(daemon, tag)
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(tag, "sleep", "1000"))
    push(registry, "moved", "v1", small("new"))
    pull(daemon, tag)
    assert daemon.status(container).image_id == old.id
    assert daemon.status(container).image_ref == f"{registry.host}/moved@{old.digest}"
    assert list(status(daemon, old.id).repo_tags) == []


# Together -------------------------------------------------------------------------------------------------------------


def test_ten_pulls_of_one_reference_are_one_transfer(daemon: Daemon, counting: BadRegistry) -> None:
    image = small("once")
    counting.add("once", "v1", image)
    gate = Gate()
    counting.break_at("/v2/once/manifests/", gate.fault())
    before = daemon.log().count("joined a running job")
    pulls = [daemon.cri.begin("PullImage", pull_request(counting.reference("once", "v1"))) for _ in range(10)]
    wait_for(lambda: daemon.log().count("joined a running job") == before + 9)
    gate.open()
    assert {each.result().image_ref for each in pulls} == {image.id}
    assert len(blobs_asked(counting, "once")) == len(image.blobs)


def test_images_that_share_layers_fetch_each_once(daemon: Daemon, counting: BadRegistry) -> None:
    base = [[file("a", "base")], [file("b", "middle")]]
    made = {tag: make_image([*base, [file("c", tag)]]) for tag in ("x", "y", "z")}
    gate = Gate()
    for tag, image in made.items():
        counting.add("sharing", tag, image)
    counting.break_at(f"/v2/sharing/blobs/{made['x'].layers[0].digest}", gate.fault())
    pulls = {tag: daemon.cri.begin("PullImage", pull_request(counting.reference("sharing", tag))) for tag in made}
    wait_for(lambda: len(counting.asked("/v2/sharing/blobs/")) >= 3)
    gate.open()
    assert {tag: each.result().image_ref for tag, each in pulls.items()} == {tag: image.id for tag, image in made.items()}
    asked = blobs_asked(counting, "sharing")
    assert sorted(asked) == sorted(set(asked))
    assert len(layers(daemon)) == 5


def test_different_images_are_pulled_at_once(daemon: Daemon, registry: Registry) -> None:
    made = {f"v{number}": make_image([[file("a", f"{number}")], [file("b", f"{number}")]]) for number in range(8)}
    for tag, image in made.items():
        push(registry, "many", tag, image)
    pulls = {tag: daemon.cri.begin("PullImage", pull_request(registry.reference("many", tag))) for tag in made}
    assert {tag: each.result().image_ref for tag, each in pulls.items()} == {tag: image.id for tag, image in made.items()}


def test_a_client_that_hangs_up_loses_nothing(daemon: Daemon, counting: BadRegistry) -> None:
    image = small("hung up on")
    counting.add("patient", "v1", image)
    gate = Gate()
    counting.break_at("/v2/patient/blobs/", gate.fault())
    first = daemon.cri.begin("PullImage", pull_request(counting.reference("patient", "v1")))
    wait_for(lambda: blobs_asked(counting, "patient"))
    first.cancel()
    gate.open()
    wait_for(lambda: status(daemon, image.id))
    assert pull(daemon, counting.reference("patient", "v1")) == image.id
    assert len(blobs_asked(counting, "patient")) == len(image.blobs)


def test_a_registry_that_hangs_keeps_no_other_waiting(daemon: Daemon, counting: BadRegistry, registry: Registry) -> None:
    gate = Gate()
    hanging = []
    counting.break_at("/v2/hanging/blobs/", gate.fault())
    for number in range(6):
        counting.add("hanging", f"v{number}", make_image([[file(f"{layer}", f"{number}")] for layer in range(3)]))
        hanging.append(daemon.cri.begin("PullImage", pull_request(counting.reference("hanging", f"v{number}"))))
    wait_for(lambda: len(counting.asked("/v2/hanging/")) >= 9)
    push(registry, "quick", "v1", small("quick"))
    assert pull(daemon, registry.reference("quick", "v1"), timeout_s=60)
    gate.open()
    assert all(each.result().image_ref for each in hanging)


def test_an_image_removed_while_it_is_pulled_again_is_whole_in_the_end(daemon: Daemon, counting: BadRegistry) -> None:
    base = [file("content", "kept")]
    old, new = make_image([base]), make_image([base, [file("top", "new")]])
    counting.add("again", "old", old)
    counting.add("again", "new", new)
    pull(daemon, counting.reference("again", "old"))
    gate = Gate()
    counting.break_at(f"/v2/again/blobs/{new.layers[1].digest}", gate.fault())
    pulling = daemon.cri.begin("PullImage", pull_request(counting.reference("again", "new")))
    wait_for(lambda: counting.asked(f"/v2/again/blobs/{new.layers[1].digest}"))
    remove(daemon, old.id)
    gate.open()
    assert pulling.result().image_ref == new.id
    assert len(layers(daemon)) == 2


# Many layers ----------------------------------------------------------------------------------------------------------


def test_an_image_of_130_layers_runs(daemon: Daemon, registry: Registry) -> None:
    above = [[directory(f"n{number}"), file(f"n{number}/content", f"{number}")] for number in range(129)]
    image = make_image([busybox_layer(), *above], compression="none")
    push(registry, "tall", "v1", image)
    pull(daemon, registry.reference("tall", "v1"))
    assert len(layers(daemon)) == 130
    container = daemon.run_container(daemon.run_pod(), daemon.container_config(image.id, "sleep", "1000"))
    assert daemon.output(container, "cat", "/n0/content", "/n128/content") == "0128"


def test_more_layers_than_overlay_takes_are_told_at_create(daemon: Daemon, registry: Registry) -> None:
    image = make_image([[file("same", "one blob")]] * 501, compression="none")
    push(registry, "too-tall", "v1", image)
    pull(daemon, registry.reference("too-tall", "v1"), timeout_s=300)
    with pytest.raises(grpc.RpcError) as told:
        daemon.create(daemon.run_pod(), daemon.container_config(image.id, "sleep", "1000"))
    assert told.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "image has 501 layers, overlay takes 500 here; flatten the image" in str(told.value.details())
