"""Images in stores that skopeo made, run from where they lie by a real daemon that never writes there."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import leaks
from support.containers_storage import HandmadeStore, skopeo_copy, skopeo_delete
from support.cri import pb, told
from support.daemon import Daemon, running_daemon, wait_for, warm_up
from support.dead_mount import dead_mount, needs_fuse
from support.image_node import images, layers, remove, status
from support.images import busybox_layer, directory, file, make_image, opaque, whiteout
from support.signing import Gpg
from support.warm import passable

pytestmark = pytest.mark.node

NAME = "example.com/team/app:v1"
REJECTED, SIGNED = "example.com/evil/app:v1", "example.com/signed/app:v1"
IMAGE = make_image(
    [
        busybox_layer([directory("d"), file("d/low", "low"), file("etc/gone", "x")]),
        [whiteout("etc/gone"), opaque("d"), directory("e"), file("e/high", "high")],
        [directory("opt", uid=1000, gid=1000), file("opt/mine", "m", uid=1000, gid=1000)],
    ],
    config={"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]},
)
OTHER = make_image([busybox_layer([file("other", "other")])], config={"Env": ["PATH=/bin"], "Cmd": ["sleep", "1000"]})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tmp_path_factory.mktemp("stores")) / "store"


@pytest.fixture(scope="module")
def signer() -> Iterator[tuple[Path, str]]:
    """A GPG home, its path short enough for the agent's socket, and a key in it."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as directory:
        gpg = Gpg(Path(directory) / "home")
        try:
            key = gpg.make_key("stores@example.com")
            (Path(directory) / "key.gpg").write_bytes(gpg.export(key))
            yield gpg.home, key
        finally:
            gpg.close()


@pytest.fixture(scope="module")
def daemon(store: Path, signer: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It reads the store and one that is hostile, named by storage.conf."""
    before = leaks.snapshot()
    hostile = HandmadeStore(store.with_name("hostile"))
    hostile.add(OTHER, "example.com/hostile:v1")
    os.chmod(hostile.root, 0o777)
    conf = store.with_name("storage.conf")
    conf.write_text(f"[storage.options]\nadditionalimagestores = {json.dumps([str(hostile.root), str(store)])}\n")
    with pytest.MonkeyPatch.context() as patch, passable() as place, running_daemon(place) as running:
        running.stop()
        patch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
        policy = {
            "default": [{"type": "insecureAcceptAnything"}],
            "transports": {
                "docker": {
                    "example.com/evil": [{"type": "reject"}],
                    "example.com/signed": [
                        {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(signer[0].with_name("key.gpg"))}
                    ],
                }
            },
        }
        (running.place / "policy.json").write_text(json.dumps(policy))
        running.start()
        skopeo_copy(store, IMAGE, NAME, tmp_path_factory.mktemp("first"))
        warm_up(running, NAME)
        skopeo_delete(store, NAME)
        yield running
    assert leaks.leaked(before) == {}


@pytest.fixture
def image(daemon: Daemon, store: Path, tmp_path: Path) -> Iterator[str]:
    """The name of an image that is in the store during the test."""
    skopeo_copy(store, IMAGE, NAME, tmp_path)
    yield NAME
    if status(daemon, NAME) is not None:
        skopeo_delete(store, NAME)
    assert images(daemon) == []


def run(daemon: Daemon, name: str = NAME, **fields: Any) -> str:
    return daemon.run_container(daemon.run_pod(daemon.pod_config(**fields)), daemon.container_config(name))


def everything(root: Path) -> dict[str, tuple[int, ...]]:
    """Each file below a directory with what changes when somebody writes; locks of its own tools apart."""
    found = {}
    for directory_name, names, files in os.walk(root):
        for name in (*names, *(each for each in files if not each.endswith(".lock"))):
            path = os.path.join(directory_name, name)
            state = os.lstat(path)
            found[path] = (state.st_ino, state.st_mode, state.st_uid, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return found


def refused(daemon: Daemon, name: str, code: grpc.StatusCode) -> str:
    """What the client is told when a container cannot be created; nothing of it is left."""
    before, pod = len(daemon.cri.call("ListContainers").containers), daemon.run_pod()
    with pytest.raises(grpc.RpcError) as told:
        daemon.create(pod, daemon.container_config(name))
    assert told.value.code() is code, told.value
    assert len(daemon.cri.call("ListContainers").containers) == before
    return str(told.value.details())


def test_a_container_runs_on_layers_where_they_lie(daemon: Daemon, store: Path, image: str) -> None:
    before = everything(store)
    container = run(daemon)
    assert daemon.output(container, "cat", "/e/high") == "high"
    assert daemon.output(container, "ls", "/d", "/etc") == "/d:\n\n/etc:\ngroup\nhostname\npasswd\nresolv.conf\n"
    assert daemon.output(container, "stat", "-c", "%u %a", "/opt", "/opt/mine") == "1000 755\n1000 644\n"
    daemon.output(container, "sh", "-c", "echo changed > /e/high; rm -r /opt; echo new > /new; chmod 700 /bin")
    assert daemon.output(container, "cat", "/e/high", "/new") == "changed\nnew\n"
    assert daemon.status(container).image_ref == f"example.com/team/app@{IMAGE.digest}"
    daemon.remove_everything()
    assert everything(store) == before
    assert layers(daemon) == []


def test_it_is_listed_as_pinned_with_its_store(daemon: Daemon, store: Path, image: str) -> None:
    (listed,) = images(daemon)
    assert (listed.id, list(listed.repo_tags), listed.pinned) == (IMAGE.id, [NAME], True)
    assert list(listed.repo_digests) == [f"example.com/team/app@{IMAGE.digest}"]
    request = pb.ImageStatusRequest(image=pb.ImageSpec(image=IMAGE.id[:12]), verbose=True)
    assert json.loads(daemon.cri.call("ImageStatus", request).info["info"])["store"] == str(store)
    (used,) = daemon.cri.call("ImageFsInfo").image_filesystems
    assert used.used_bytes.value == 0


def test_a_killed_daemon_finds_container_and_image_again(daemon: Daemon, image: str) -> None:
    container = run(daemon)
    daemon.restart(9)
    assert daemon.output(container, "cat", "/e/high") == "high"
    assert status(daemon, NAME).id == IMAGE.id
    assert daemon.output(run(daemon), "cat", "/e/high") == "high"


def test_an_image_that_its_tool_removes_is_gone_for_new_containers_only(daemon: Daemon, store: Path, image: str) -> None:
    container = run(daemon)
    skopeo_delete(store, NAME)
    assert status(daemon, NAME) is None
    assert "pull it first" in refused(daemon, NAME, grpc.StatusCode.NOT_FOUND)
    daemon.restart(9)
    assert daemon.status(container).state == pb.CONTAINER_RUNNING
    daemon.stop_container(container)


def test_a_tree_that_vanished_is_told_with_what_to_do(daemon: Daemon, store: Path, image: str) -> None:
    assert status(daemon, NAME) is not None
    records = json.loads((store / "overlay-layers/layers.json").read_text())
    diff = store / "overlay" / records[0]["id"] / "diff"
    diff.rename(diff.with_name("away"))
    try:
        said = refused(daemon, NAME, grpc.StatusCode.DATA_LOSS)
    finally:
        diff.with_name("away").rename(diff)
    assert f"it is in the store {store} of another tool" in said
    assert "pull the image" in said


def test_a_pod_with_a_user_namespace_runs_on_them(daemon: Daemon, store: Path, image: str) -> None:
    before = everything(store)
    config = daemon.pod_config()
    mapping = [pb.IDMapping(host_id=700_000, container_id=0, length=65_536)]
    config.linux.security_context.namespace_options.userns_options.CopyFrom(
        pb.UserNamespace(mode=pb.POD, uids=mapping, gids=mapping)
    )
    container_config = daemon.container_config(NAME)
    container_config.linux.security_context.CopyFrom(
        pb.LinuxContainerSecurityContext(namespace_options=config.linux.security_context.namespace_options)
    )
    pod = daemon.run_pod(config)
    container = daemon.run_container(pod, container_config)
    assert daemon.output(container, "stat", "-c", "%u", "/bin/busybox", "/opt/mine") == "0\n1000\n"
    daemon.output(container, "touch", "/e/new")
    daemon.remove_everything()
    assert everything(store) == before


def test_more_layers_than_a_page_of_options_names_run(daemon: Daemon, store: Path, image: str, tmp_path: Path) -> None:
    name = "example.com/team/many:v1"
    many = make_image([busybox_layer(), *([file(f"f{number}", str(number))] for number in range(79))])
    skopeo_copy(store, many, name, tmp_path)
    try:
        container = daemon.run_container(daemon.run_pod(), daemon.container_config(name, "/bin/sleep", "1000"))
        assert daemon.output(container, "/bin/cat", "/f0", "/f78") == "078"
        daemon.remove_everything()
    finally:
        skopeo_delete(store, name)


def test_it_can_be_mounted_as_a_volume(daemon: Daemon, store: Path, image: str, tmp_path: Path) -> None:
    name = "example.com/other:v1"
    skopeo_copy(store, OTHER, name, tmp_path)
    config = daemon.container_config(NAME)
    config.mounts.append(pb.Mount(container_path="/one", readonly=True, image=pb.ImageSpec(image=name)))
    config.mounts.append(pb.Mount(container_path="/several", readonly=True, image=pb.ImageSpec(image=NAME)))
    try:
        container = daemon.run_container(daemon.run_pod(), config)
        assert daemon.output(container, "cat", "/one/other", "/several/e/high") == "otherhigh"
        daemon.remove_everything()
    finally:
        skopeo_delete(store, name)


def test_it_cannot_be_removed_here(daemon: Daemon, store: Path, image: str) -> None:
    for text in (NAME, IMAGE.id):
        with pytest.raises(grpc.RpcError, match=f"in the store {store}, which is only read here") as told:
            remove(daemon, text)
        assert told.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert status(daemon, NAME) is not None


def test_the_policy_judges_its_name(daemon: Daemon, store: Path, image: str, tmp_path: Path) -> None:
    skopeo_copy(store, OTHER, REJECTED, tmp_path)
    try:
        assert "example.com/evil" in refused(daemon, REJECTED, grpc.StatusCode.PERMISSION_DENIED)
    finally:
        skopeo_delete(store, REJECTED)


def test_a_signature_that_the_store_keeps_vouches_for_its_image(
    daemon: Daemon, store: Path, image: str, tmp_path: Path, signer: tuple[Path, str]
) -> None:
    skopeo_copy(store, OTHER, SIGNED, tmp_path, signer=signer)
    try:
        container = daemon.run_container(daemon.run_pod(), daemon.container_config(SIGNED))
        assert daemon.output(container, "cat", "/other") == "other"
        daemon.remove_everything()
    finally:
        skopeo_delete(store, SIGNED)
    skopeo_copy(store, IMAGE, SIGNED, tmp_path)
    try:
        assert "example.com/signed" in refused(daemon, SIGNED, grpc.StatusCode.PERMISSION_DENIED)
    finally:
        skopeo_delete(store, SIGNED)
        skopeo_copy(store, IMAGE, NAME, tmp_path)


def test_a_store_that_others_may_write_is_left_out(daemon: Daemon, store: Path, image: str) -> None:
    assert status(daemon, "example.com/hostile:v1") is None
    hostile = store.with_name("hostile")
    wait_for(lambda: f"{hostile} belongs to user 0 and has mode 0777" in daemon.log())


@needs_fuse
def test_a_store_that_hangs_keeps_neither_lists_nor_containers_nor_a_start(daemon: Daemon, store: Path, image: str) -> None:
    pod = daemon.run_pod()
    running = daemon.run_container(pod, daemon.container_config(image, "sleep", "1000"))
    listed = {each.id for each in images(daemon)}
    with dead_mount(store):
        seen = len(daemon.log())
        for _ in range(3):
            assert {each.id for each in images(daemon)} == listed
        assert daemon.log()[seen:].count("image store hangs") == 1
        assert f"image store {store} does not answer" in daemon.log()[seen:]
        code, text = told(lambda: daemon.create(pod, daemon.container_config(image, "true", name="late")))
        assert (code, f"the store {store} of another tool" in text) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)
        assert daemon.output(running, "echo", "there") == "there\n"  # the kernel holds what is mounted
        daemon.restart()
        assert daemon.status(running).state == pb.CONTAINER_RUNNING
        assert images(daemon) == []
    wait_for(lambda: {each.id for each in images(daemon)} == listed)
    daemon.run_container(pod, daemon.container_config(image, "true", name="late"))
