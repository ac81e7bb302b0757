"""Images as files and streams, with a daemon and alone: what is written is whole or not there; skopeo is the second opinion."""

import json
import os
import shutil
import signal
import subprocess
import tarfile  # noqa: TID251 - makes what we read
from collections.abc import Iterator
from pathlib import Path

import pytest
from kpod_node import Kpod
from support.daemon import wait_for
from support.images import busybox_image, file, make_image, push
from support.registry import Registry

pytestmark = pytest.mark.node


@pytest.fixture(autouse=True)
def no_images_left(kpod: Kpod) -> Iterator[None]:
    yield
    assert kpod("rmi", "-a").status == 0
    assert kpod("prune", "-a").status == 0


def ok(kpod: Kpod, *words: object, stdin: bytes = b"") -> str:
    answer = kpod(*words, stdin=stdin)
    assert answer.status == 0, answer.err
    return answer.out


def skopeo(*words: object) -> str:
    argv = ["skopeo", "--insecure-policy", *map(str, words)]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def streamed(kpod: Kpod, *words: object) -> bytes:
    done = subprocess.run(kpod.argv(*words), env=kpod.environment(), capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_an_archive_passes_through_a_pipe(kpod: Kpod, tmp_path: Path, form: str) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    archive = streamed(kpod, "save", "--format", form, kpod.image)
    (tmp_path / "a.tar").write_bytes(archive)
    assert json.loads(skopeo("inspect", "--config", f"{form}:{tmp_path}/a.tar"))["config"]["Cmd"] == ["sh"]
    ok(kpod, "rmi", kpod.image)
    assert ok(kpod, "load", stdin=archive).strip() == kpod.image
    assert [path.name for path in kpod.daemon.root.glob(".*.kpod")] == []


def test_a_stream_that_cannot_be_is_told_before_a_byte_is_written(kpod: Kpod) -> None:
    answer = kpod("save", "-o", "-", "example.com/none:1")
    assert (answer.status, answer.out) == (1, "")
    assert "not found" in answer.err
    assert kpod("save", "--format", "oci-dir", kpod.image).status == 2


def test_a_reader_that_goes_away_ends_the_save(kpod: Kpod) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    with kpod.start("save", kpod.image) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 1
    assert ok(kpod, "images", "-q")


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci-dir", "dir"])
def test_a_full_disk_leaves_nothing(kpod: Kpod, tmp_path: Path, form: str) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", small], check=True)
    try:
        answer = kpod("save", "--format", form, "-o", small / "out", kpod.image)
        assert answer.status == 1
        assert "No space left" in answer.err
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def begun(place: Path) -> bool:
    """Whether a blob is being written; what is there may go while we look."""
    try:
        return bool(list(place.glob(".*.kpod/tree/blobs/sha256/.*")))
    except FileNotFoundError:
        return False


def killed_half_way(kpod: Kpod, *words: object, place: Path) -> bool:
    """Kill a save while it writes a blob; False when it was done before we saw that."""
    with kpod.start(*words) as process:
        wait_for(lambda: begun(place) or process.poll() is not None)
        process.kill()
        return process.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive", "oci-dir", "dir", "stream"])
def test_a_save_that_is_killed_leaves_no_half_of_it_and_the_next_one_works(
    kpod: Kpod, registry: Registry, tmp_path: Path, form: str
) -> None:
    name, out = registry.reference("big"), tmp_path / "out"
    layers = [[file("a", os.urandom(24 << 20))], [file("b", os.urandom(8 << 20))]]
    push(registry, "big", "latest", make_image(layers, compression="none"))
    ok(kpod, "pull", "-q", name)
    place = kpod.daemon.root if form == "stream" else tmp_path
    words = ("save", name) if form == "stream" else ("save", "--format", form, "-o", out, name)
    while not killed_half_way(kpod, *words, place=place):
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    if kpod.daemon.process is not None:
        wait_for(lambda: not list(place.glob(".*.kpod")))  # nobody waits for it any more; the daemon's death is a crash test's
    assert not out.exists()
    again = streamed(kpod, *words)
    wait_for(lambda: not list(place.glob(".*.kpod")))
    kept = {"dir": "dir", "oci-dir": "oci"}.get(form, "docker-archive" if form == "docker-archive" else "oci-archive")
    if form == "stream":
        out.write_bytes(again)
    assert json.loads(skopeo("inspect", "--config", f"{kept}:{out}"))["os"] == "linux"
    assert os.listdir(tmp_path) == ["out"]
    assert list((kpod.daemon.root / "staging").iterdir()) == []


def test_what_a_killed_load_left_goes_with_the_next_start(kpod: Kpod) -> None:
    spool = kpod.daemon.root / "kpod"
    with subprocess.Popen(kpod.argv("load"), env=kpod.environment(), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"half")
        process.stdin.flush()
        wait_for(lambda: list(spool.glob(".load.*/input")))
        process.kill()
        process.wait(60)
    assert list(spool.iterdir())
    if kpod.daemon.process is not None:
        kpod.daemon.restart()
    else:
        ok(kpod, "images")
    assert list(spool.iterdir()) == []


def test_what_is_no_archive_is_told(kpod: Kpod) -> None:
    answer = kpod("load", stdin=b"junk")
    assert (answer.status, answer.out) == (1, "")
    assert "is no image archive, or broken off" in answer.err


def test_what_is_there_is_not_replaced(kpod: Kpod, tmp_path: Path) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    (tmp_path / "a").write_text("mine")
    assert "nothing is yet" in kpod("save", "-o", tmp_path / "a", kpod.image).err
    assert (tmp_path / "a").read_text() == "mine"
    assert os.listdir(tmp_path) == ["a"]


def test_a_dir_goes_to_skopeo_and_comes_back(kpod: Kpod, tmp_path: Path) -> None:
    ok(kpod, "pull", "-q", kpod.image)
    ok(kpod, "push", kpod.image, f"dir:{tmp_path}/ours")
    skopeo("copy", "-q", f"dir:{tmp_path}/ours", f"oci:{tmp_path}/layout:x")
    assert json.loads(skopeo("inspect", "--config", f"oci:{tmp_path}/layout:x"))["config"]["Cmd"] == ["sh"]
    ok(kpod, "rmi", "-a")
    assert ok(kpod, "load", "-i", f"{tmp_path}/ours", "--name", "example.com/back:1").strip() == "example.com/back:1"


def test_a_push_adds_to_a_layout_that_skopeo_made(kpod: Kpod, registry: Registry, tmp_path: Path) -> None:
    other, layout = make_image([[file("b", "y")]]), tmp_path / "layout"
    push(registry, "other", "latest", other)
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.reference('other')}", f"oci:{layout}:theirs")
    ok(kpod, "pull", "-q", kpod.image)
    for _ in range(2):
        ok(kpod, "push", kpod.image, f"oci:{layout}:ours")
    assert json.loads(skopeo("inspect", f"oci:{layout}:theirs"))["Digest"] == other.digest
    assert json.loads(skopeo("inspect", "--config", f"oci:{layout}:ours"))["config"]["Cmd"] == ["sh"]
    skopeo("copy", "-q", f"oci:{layout}:ours", f"dir:{tmp_path}/checked")
    assert len(json.loads((layout / "index.json").read_text())["manifests"]) == 2
    assert sorted(os.listdir(tmp_path)) == ["checked", "layout"]


def test_an_import_that_is_killed_makes_no_image(kpod: Kpod, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("large")
    entry.size = 1 << 30
    with (tmp_path / "a.tar").open("wb") as archive:
        archive.write(entry.tobuf())
        archive.truncate(entry.size + 4096)
    staging = kpod.daemon.root / "staging"
    ok(kpod, "images")
    with kpod.start("import", tmp_path / "a.tar", "example.com/made:1") as process:
        wait_for(lambda: [name for name in os.listdir(staging) if not name.startswith("check-")])  # of the start of one alone
        process.kill()
        process.wait(60)
    if kpod.daemon.process is not None:
        wait_for(lambda: not list(staging.iterdir()))
    assert ok(kpod, "images", "-q") == ""
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize("every", [False, True])
def test_a_dir_of_skopeo_is_loaded_with_its_digest(kpod: Kpod, registry: Registry, tmp_path: Path, every: bool) -> None:
    words = ["--all"] if every else []
    skopeo(
        "copy", "-q", "--src-tls-verify=false", *words, f"docker://{registry.reference('busybox')}", f"dir:{tmp_path}/theirs"
    )
    ok(kpod, "load", "-i", f"dir:{tmp_path}/theirs", "--name", "example.com/air/gapped:1")
    [image] = json.loads(ok(kpod, "images", "--json"))
    assert image["digests"] == [f"example.com/air/gapped@{busybox_image().digest}"]
    assert ok(kpod, "run", "--rm", "--pull", "never", "example.com/air/gapped:1", "echo", "runs") == "runs\n"


def test_a_dir_that_is_damaged_is_refused(kpod: Kpod, registry: Registry, tmp_path: Path) -> None:
    skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{registry.reference('busybox')}", f"dir:{tmp_path}/d")
    manifest = json.loads((tmp_path / "d/manifest.json").read_text())
    blob = tmp_path / "d" / manifest["layers"][0]["digest"].partition(":")[2]
    blob.write_bytes(b"x" + blob.read_bytes()[1:])
    assert "digest" in kpod("load", "-i", tmp_path / "d").err
    blob.unlink()
    assert "missing" in kpod("load", "-i", tmp_path / "d").err
    assert ok(kpod, "images", "-q") == ""
