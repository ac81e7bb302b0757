"""`crio check`, `--repair` and `crio wipe` as an operator runs them: beside a daemon with pods, and without one."""

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.artifacts import make_artifact, push_artifact
from support.cri import pb
from support.daemon import CRIO, Daemon, running_daemon, wait_for
from support.images import (
    busybox_image,
    busybox_layer,
    directory,
    file,
    make_image,
    push,
    write_docker_archive,
    write_oci_archive,
    write_oci_layout,
)
from support.registry import Registry

from criollo import __version__
from criollo.cli.ask import ask
from criollo.linux import mount

pytestmark = pytest.mark.node


@pytest.fixture
def node(registry: Registry, tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of the test's own with one image of two layers."""
    with running_daemon(tmp_path, registries=registry.registries_conf()) as running:
        upper = [
            directory("data"),
            directory("usr/share"),
            file("data/big", os.urandom(1 << 20)),
            file("usr/share/note", "hello", mode=0o640),
        ]
        push(registry, "cared", "latest", make_image([busybox_layer(), upper], config={"Cmd": ["sh"]}))
        running.pull(registry.reference("cared"))
        yield running


def crio(node: Daemon, *words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **node.registries}
    return subprocess.run(
        [str(CRIO), "-c", str(node.place / "crio.conf"), "-d", "", *words],
        capture_output=True, text=True, env=environment, timeout=120, check=False, umask=umask,
    )  # fmt: skip


def layer_with(node: Daemon, name: str) -> Path:
    return next(path for path in (node.root / "layers").iterdir() if (path / name).exists())


def tree_of(top: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Everything that a repair must bring back."""
    found = {}
    for place, directories, names in os.walk(top):
        for name in [".", *directories, *names]:
            path = Path(place) / name
            status = path.lstat()
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            found[str(path.relative_to(top))] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def flip(path: Path) -> None:
    with path.open("r+b") as opened:
        byte = opened.read(1)[0]
        opened.seek(0)
        opened.write(bytes([byte ^ 1]))


def test_check_finds_nothing_on_a_whole_node(node: Daemon) -> None:
    for words in (("check",), ("check", "--quick")):
        told = crio(node, *words)
        assert told.returncode == 0, told.stderr
        assert "1 images, 2 layers" in told.stdout
        assert told.stdout.rstrip().endswith("no damage")


def test_repair_brings_back_the_very_tree_while_a_container_reads_the_old_one(node: Daemon, registry: Registry) -> None:
    layer = layer_with(node, "data/big")
    before = tree_of(layer)
    pod = node.run_pod()
    container = node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000"))
    (layer / "usr/share/note").write_text("HELLO")
    (layer / "data/added").touch()
    flip(layer / "data/big")

    told = crio(node, "check")
    assert told.returncode == 1
    assert f"DAMAGED  layer {layer.name}" in told.stdout
    assert "/data/big: content differs" in told.stdout
    assert "/data/added: does not belong there" in told.stdout
    assert registry.reference("cared") in told.stdout
    assert container in told.stdout

    told = crio(node, "check", "--repair")
    assert told.returncode == 0, told.stdout + told.stderr
    assert f"REPAIRED layer {layer.name}" in told.stdout
    assert tree_of(layer) == before
    assert node.exec(container, "cat", "/usr/share/note").stdout == b"HELLO"  # goes on with the tree it was started on
    assert len(os.listdir(node.root / "retired")) == 1
    assert crio(node, "check").returncode == 0

    fresh = node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000", name="fresh"))
    assert node.exec(fresh, "cat", "/usr/share/note").stdout == b"hello"
    node.remove_pod(pod)


def test_the_old_tree_survives_a_restart_and_goes_with_its_last_container(node: Daemon, registry: Registry) -> None:
    pod = node.run_pod()
    container = node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000"))
    flip(layer_with(node, "data/big") / "data/big")
    assert crio(node, "check", "--repair").returncode == 0
    node.stop()
    node.start()
    assert len(os.listdir(node.root / "retired")) == 1
    assert node.exec(container, "sha256sum", "/data/big").exit_code == 0
    node.remove_pod(pod)
    node.stop()
    node.start()
    assert os.listdir(node.root / "retired") == []


def test_a_missing_layer_is_pulled_again(node: Daemon) -> None:
    layer = layer_with(node, "data/big")
    before = tree_of(layer)
    layer.rename(node.place / "away")
    told = crio(node, "check", "--quick")
    assert told.returncode == 1
    assert f"MISSING  layer {layer.name}" in told.stdout
    assert crio(node, "check", "--quick", "--repair").returncode == 0
    assert tree_of(layer) == before


def test_what_no_registry_has_any_more_is_named_for_removal_by_hand(node: Daemon, registry: Registry) -> None:
    (node.place / "registries.conf").write_text('[[registry]]\nprefix = "*"\nlocation = "127.0.0.1:1"\ninsecure = true\n')
    node.stop()
    (node.place / "registries.conf").write_text(f'[[registry]]\nlocation = "{registry.host}"\nblocked = true\n')
    node.start()
    flip(layer_with(node, "data/big") / "data/big")
    told = crio(node, "check", "--repair")
    assert told.returncode == 1
    assert "not repaired:" in told.stdout
    assert "remove by hand" in told.stdout
    told = crio(node, "check", "--repair", "--force")
    assert told.returncode == 0, told.stdout
    assert not node.cri.call("ListImages").images


def test_the_blob_of_an_artifact_is_held_against_its_digest_and_repaired(node: Daemon, registry: Registry) -> None:
    push_artifact(registry, "team/model", "v1", make_artifact({"weights.bin": b"w" * 5000}))
    node.pull(registry.reference("team/model", "v1"))
    blob = layer_with(node, "blob") / "blob"
    flip(blob)
    told = crio(node, "check")
    assert told.returncode == 1
    assert "/blob: is not what its digest" in told.stdout
    told = crio(node, "check", "--repair")
    assert told.returncode == 0, told.stdout
    assert blob.read_bytes() == b"w" * 5000


def test_check_works_without_a_daemon(node: Daemon) -> None:
    node.stop()
    assert crio(node, "check").returncode == 0
    flip(layer_with(node, "data/big") / "data/big")
    assert crio(node, "check").returncode == 1
    assert crio(node, "check", "--repair").returncode == 0
    assert crio(node, "check").returncode == 0


def test_containers_may_read_what_is_repaired_without_a_daemon(node: Daemon, registry: Registry) -> None:
    push_artifact(registry, "team/model", "v1", make_artifact({"weights.bin": b"w" * 5000}))
    node.pull(registry.reference("team/model", "v1"))
    damaged = [layer_with(node, "blob") / "blob", layer_with(node, "data/big") / "data/big"]
    node.stop()
    for path in damaged:
        flip(path)
    assert crio(node, "check", "--repair", umask=0o077).returncode == 0
    modes = [stat.S_IMODE(each.stat().st_mode) for path in damaged for each in (path, path.parent)]
    assert modes == [0o444, 0o755, 0o644, 0o755]
    assert crio(node, "check").returncode == 0


def test_a_damaged_database_is_named_and_check_says_what_to_do(node: Daemon) -> None:
    node.stop()
    (node.root / "images.db").write_bytes(b"this is no database" * 1000)
    told = crio(node, "check")
    assert told.returncode == 1
    assert "images.db" in told.stdout
    assert "move the file away" in told.stdout
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 1
    node.process = None
    assert "crio check" in node.log()
    (node.root / "images.db").unlink()
    node.start()


def test_wipe_refuses_while_a_daemon_runs(node: Daemon) -> None:
    told = crio(node, "wipe", "-f")
    assert told.returncode == 1
    assert f"process {node.pid} owns it" in told.stderr


def test_wipe_refuses_while_containers_run(node: Daemon, registry: Registry) -> None:
    pod = node.run_pod()
    node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000"))
    node.stop()
    told = crio(node, "wipe", "-f")
    assert told.returncode == 1
    assert "running containers" in told.stderr
    node.start()
    node.remove_pod(pod)


def held(node: Daemon) -> dict[str, object]:
    """What a wipe would take: rows and directories."""
    found: dict[str, object] = {name: sorted(os.listdir(node.root / name)) for name in ("layers", "rootfs", "seals")}
    for name, table in (("state.db", "pod"), ("state.db", "container"), ("images.db", "image"), ("images.db", "layer")):
        with contextlib.closing(sqlite3.connect(node.root / name)) as database:
            found[table] = database.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
    assert found["container"]
    assert found["image"]
    return found


def test_wipe_by_kind(node: Daemon, registry: Registry) -> None:
    pod = node.run_pod()
    container = node.run_container(pod, node.container_config(registry.reference("cared"), "true"))
    node.wait_state(container, pb.CONTAINER_EXITED)
    node.stop()
    told = crio(node, "wipe", "--images")
    assert told.returncode == 0, told.stderr
    assert "kept image" in told.stdout
    before = held(node)
    dry = crio(node, "wipe", "-f", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would remove container" in dry.stdout
    assert "would remove image" in dry.stdout
    for kind in ("--containers", "--images", "--all"):
        assert crio(node, "wipe", kind, "--dry-run").returncode == 0
    assert held(node) == before
    assert crio(node, "wipe", "--containers").returncode == 0
    assert os.listdir(node.root / "rootfs") == []
    assert crio(node, "wipe", "--images").returncode == 0
    assert set(os.listdir(node.root / "layers")) == {"empty"}
    node.start()
    assert not node.cri.call("ListImages").images


def test_wipe_all_leaves_what_is_not_ours(node: Daemon) -> None:
    node.stop()
    (node.root / "mine").write_text("not Criollo's")
    (node.root / "preload.json").write_text("{}")
    (node.root / "kpod/volumes/of-nobody").mkdir(parents=True)
    told = crio(node, "wipe", "--all")
    assert told.returncode == 0, told.stderr
    assert set(os.listdir(node.root)) == {"lock", "mine", "clean.shutdown", "clean.shutdown.supported"}
    assert mount.below(node.root) == []
    node.start()


def test_without_kinds_nothing_goes_that_is_not_due(node: Daemon) -> None:
    node.stop()
    told = crio(node, "wipe")
    assert told.returncode == 0, told.stderr
    assert "nothing is due" in told.stdout
    (node.runroot / "version").unlink()
    assert "nothing is due" not in crio(node, "wipe", "--dry-run").stdout
    assert crio(node, "wipe").returncode == 0
    assert (node.runroot / "crio-wipe-done").read_text() == "done"
    node.start()
    assert len(node.cri.call("ListImages").images) == 1


REPAIR_POINTS = [
    "criollo.workers.pool:Workers.verify:after",
    "criollo.storage.layers:Layers.inherit:after",
    "criollo.storage.layers:Layers.sync:after",
    "criollo.images.seals:keep:after",
    "criollo.images.retired:exchange:before",
    "criollo.images.retired:_write_users:before",
    "criollo.images.retired:exchange:after",
]


@pytest.mark.parametrize("point", REPAIR_POINTS)
def test_kill_9_in_repair_leaves_a_whole_tree_and_the_next_repair_ends_it(node: Daemon, registry: Registry, point: str) -> None:
    layer = layer_with(node, "data/big")
    before = tree_of(layer)
    pod = node.run_pod()
    container = node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000"))
    was = node.output(container, "sha256sum", "/data/big", "/usr/share/note")
    os.truncate(layer / "data/big", 1000)
    node.stop()
    node.start(fault=f"{point}:kill")
    assert crio(node, "check", "--repair").returncode == 1
    node.wait_death()
    node.start()
    assert node.exec(container, "cat", "/usr/share/note").stdout == b"hello"
    assert crio(node, "check", "--repair").returncode == 0
    assert tree_of(layer) == before
    assert crio(node, "check").returncode == 0
    fresh = node.run_container(pod, node.container_config(registry.reference("cared"), "sleep", "1000", name="fresh"))
    assert node.output(fresh, "sha256sum", "/data/big", "/usr/share/note") == was
    node.remove_pod(pod)
    node.restart()
    wait_for(lambda: os.listdir(node.root / "retired") == [])


def test_kill_9_between_seal_and_layer_leaves_no_seal(node: Daemon, registry: Registry) -> None:
    push(registry, "killed", "latest", make_image([[file("only-here")]]))
    node.stop()
    node.start(fault="criollo.images.seals:keep:after:kill")
    with pytest.raises(grpc.RpcError):
        node.pull(registry.reference("killed"))
    node.wait_death()
    node.start()
    assert set(os.listdir(node.root / "seals")) == set(os.listdir(node.root / "layers")) - {"empty"}
    node.pull(registry.reference("killed"))
    assert crio(node, "check").returncode == 0


def test_an_end_that_was_not_clean_brings_a_check_at_the_next_start(node: Daemon) -> None:
    assert not (node.root / "clean.shutdown").exists()
    node.stop()
    assert (node.root / "clean.shutdown").exists()
    node.start()
    assert "did not end as it should" not in node.log()
    node.kill()
    node.start()
    wait_for(lambda: "stores checked" in node.log())


def test_images_go_after_an_upgrade_only_where_the_configuration_says_so(node: Daemon) -> None:
    conf = node.place / "crio.conf"
    conf.write_text(conf.read_text().replace("[crio]\n", f'[crio]\nversion_file_persist = "{node.place}/persist"\n', 1))
    (node.place / "persist").write_text(__version__)
    node.restart()
    assert len(node.cri.call("ListImages").images) == 1
    node.stop()
    (node.place / "persist").write_text("0.0.1")
    node.start()
    wait_for(lambda: (node.place / "persist").read_text() == __version__)
    assert len(node.cri.call("ListImages").images) == 0


def test_the_scrub_finds_damage_and_a_stop_ends_it_at_once(node: Daemon) -> None:
    conf = node.place / "crio.conf"
    conf.write_text(conf.read_text() + '[crio.care]\nscrub_rate = "64MiB"\nscrub_every = "1ms"\n')
    layer = layer_with(node, "data/big")
    flip(layer / "data/big")
    node.restart()
    wait_for(lambda: f"layer={layer.name}" in node.log() and "layer is damaged" in node.log(), 30)
    found = json.loads(ask(Path(node.socket), "GET", "/scrub", {}))
    assert found["enabled"]
    assert [each["layer"] for each in found["damaged"]] == [layer.name]
    conf.write_text(conf.read_text().replace("64MiB", "1KiB"))
    node.restart()
    began = time.monotonic()
    node.stop()
    assert time.monotonic() - began < 20  # a layer takes 20 minutes at this rate


def test_an_archive_in_the_preload_directory_becomes_a_pinned_image_until_it_is_taken_away(node: Daemon) -> None:
    there = node.place / "preload"
    there.mkdir()
    write_docker_archive(there / "first.tar", {"example.com/first:1": busybox_image()})
    conf = node.place / "crio.conf"
    conf.write_text(conf.read_text() + f'[crio.care]\npreload_dir = "{there}"\n')
    node.restart()
    wait_for(lambda: named(node, "example.com/first:1"))
    (image,) = named(node, "example.com/first:1")
    assert image.pinned

    write_oci_layout(there / ".second", {"example.com/second:1": make_image([[file("second")]])})
    (there / ".second").rename(there / "second")
    wait_for(lambda: named(node, "example.com/second:1"))

    whole = write_oci_archive(node.place / "third.tar", {"example.com/third:1": make_image([[file("third")]])}).read_bytes()
    put_at_once(there / "third.tar", whole[:4500])
    wait_for(lambda: "archive not preloaded" in node.log())
    put_at_once(there / "third.tar", whole)
    wait_for(lambda: named(node, "example.com/third:1"))
    assert node.log().count("archive not preloaded") == 1

    (there / "first.tar").unlink()
    wait_for(lambda: not named(node, "example.com/first:1")[0].pinned)
    assert named(node, "example.com/second:1")[0].pinned
    before = node.log().count("image loaded")
    node.restart()
    assert named(node, "example.com/second:1")[0].pinned
    assert node.log().count("image loaded") == before


def test_what_the_policy_rejects_is_not_preloaded(node: Daemon) -> None:
    there = node.place / "preload"
    there.mkdir()
    policy = {
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {"rejected.example": [{"type": "reject"}]}},
    }
    (node.place / "policy.json").write_text(json.dumps(policy))
    write_docker_archive(there / "bad.tar", {"rejected.example/app:1": make_image([[file("bad")]])})
    write_docker_archive(there / "good.tar", {"accepted.example/app:1": make_image([[file("good")]])})
    conf = node.place / "crio.conf"
    conf.write_text(conf.read_text() + f'[crio.care]\npreload_dir = "{there}"\n')
    node.restart()
    wait_for(lambda: named(node, "accepted.example/app:1"))
    wait_for(lambda: "archive not preloaded" in node.log())
    assert not named(node, "rejected.example/app:1")
    assert "rejected.example" in node.log().partition("archive not preloaded")[2].splitlines()[0]


def put_at_once(path: Path, content: bytes) -> None:
    """Nobody sees the half of it, however slowly this machine writes."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_bytes(content)
    hidden.rename(path)


def named(node: Daemon, name: str) -> list[Any]:
    return [image for image in node.cri.call("ListImages").images if name in image.repo_tags]


def test_a_second_daemon_on_the_root_is_refused_and_changes_nothing(node: Daemon) -> None:
    told = crio(node)
    assert told.returncode == 1
    assert f"process {node.pid} owns it" in told.stderr + told.stdout
    assert not (node.root / "clean.shutdown").exists()
    assert crio(node, "check").returncode == 0


def test_no_image_goes_from_under_a_create(node: Daemon, registry: Registry) -> None:
    """Removing, pruning and creating at once: a create that succeeds has its image and all its layers."""
    pod, reference = node.run_pod(), registry.reference("cared")
    remove = pb.RemoveImageRequest(image=pb.ImageSpec(image=reference))
    rounds = [
        lambda: node.cri.call("RemoveImage", remove),
        lambda: ask(Path(node.socket), "POST", "/images/prune", {"all": "1"}),
    ]
    for number in range(12):
        node.pull(reference)
        with ThreadPoolExecutor(2) as pool:
            taking = pool.submit(rounds[number % 2])
            config = node.container_config(reference, "sleep", "1000", name=f"c{number}")
            creating = pool.submit(node.create, pod, config)
            with contextlib.suppress(grpc.RpcError):
                taking.result()
            failed = creating.exception()
        if failed is not None:
            assert isinstance(failed, grpc.RpcError)
            assert failed.code() is grpc.StatusCode.NOT_FOUND, failed
            continue
        container = creating.result()
        assert named(node, reference)
        node.start_container(container)
        assert node.output(container, "cat", "/usr/share/note") == "hello"
        assert crio(node, "check").returncode == 0
        node.remove_container(container)
    node.remove_pod(pod)


def test_a_prune_takes_nothing_from_a_running_pull(node: Daemon, registry: Registry) -> None:
    layers = [[file(f"layer-{number}", os.urandom(1 << 20))] for number in range(12)]
    push(registry, "many", "latest", make_image(layers))
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(node.pull, registry.reference("many"))
        while not pulling.done():
            ask(Path(node.socket), "POST", "/images/prune", {"all": "1"})
        pulling.result()
    assert crio(node, "check").returncode == 0


def test_a_clock_that_jumps_neither_stops_the_scrub_nor_damages_anything(node: Daemon) -> None:
    conf = node.place / "crio.conf"
    conf.write_text(conf.read_text() + '[crio.care]\nscrub_rate = "1GiB"\nscrub_every = "1h"\n')
    node.stop()
    for seal in (node.root / "seals").iterdir():
        os.utime(seal, (0, 0))
    node.tuned = {"clock_jumps_s": 10_000_000}
    node.start()
    wait_for(lambda: json.loads(ask(Path(node.socket), "GET", "/scrub", {}))["looked_at"] > 0)
    assert json.loads(ask(Path(node.socket), "GET", "/scrub", {}))["damaged"] == []
    node.tuned = {}
    node.restart()
    assert crio(node, "check").returncode == 0


def test_a_damaged_state_database_is_named(node: Daemon) -> None:
    node.stop()
    (node.root / "state.db").write_bytes(b"this is no database" * 1000)
    told = crio(node, "check", "--quick")
    assert told.returncode == 1
    assert "state.db" in told.stdout
    assert crio(node, "wipe", "--all").returncode == 0
    node.start()
    assert not node.cri.call("ListImages").images
