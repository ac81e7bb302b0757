"""kpod cp against real containers: what docker and podman make of the same words, and nothing else."""

import contextlib
import io
import os
import signal
import stat
import subprocess
import tarfile  # noqa: TID251  # what ours is compared with
from collections.abc import Iterator
from pathlib import Path

import pytest
from kpod_node import Kpod, Said
from support.daemon import wait_for

pytestmark = pytest.mark.node


@contextlib.contextmanager
def running(kpod: Kpod, *flags: str) -> Iterator[str]:
    """A container that runs for the block."""
    said = kpod("run", "-d", "--name", "box", *flags, kpod.image, "sleep", "1000")
    assert said.status == 0, said.err
    try:
        yield "box"
    finally:
        assert kpod("rm", "-f", "box").status == 0


@pytest.fixture
def box(kpod: Kpod, tmp_path: Path) -> Iterator[str]:
    """A container that runs, with a volume at /vol."""
    (tmp_path / "volume").mkdir()
    with running(kpod, "-v", f"{tmp_path}/volume:/vol") as name:
        yield name


def inside(kpod: Kpod, *command: str) -> str:
    said = kpod("exec", "box", "--", *command)
    assert said.status == 0, said.err
    return said.out


def done(said: Said) -> None:
    assert (said.status, said.out, said.err) == (0, "", "")


def a_tree(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    tree = tmp_path / "tree"
    (tree / "below/deep").mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(3_000_001))
    (tree / "file").chmod(0o4751)
    (tree / "below/link").symlink_to("/etc/passwd")
    os.link(tree / "file", tree / "below/hard")
    os.mkfifo(tree / "below/fifo")
    (tree / "below/deep/owned").write_text("x")
    os.chown(tree / "below/deep/owned", 1234, 5678)
    os.setxattr(tree / "below/deep/owned", "user.note", b"kept")
    os.utime(tree / "file", ns=(10**18 + 7, 10**18 + 7))
    (tree / "below").chmod(0o2750)
    return tree


def shown(tree: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that a copy keeps."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [tree, *sorted(tree.rglob("*"))]:
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = path.read_bytes() if kind == stat.S_IFREG else os.readlink(path) if kind == stat.S_IFLNK else b""
        name = str(path.relative_to(tree))
        found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, content)
    return found


def test_a_tree_comes_back_as_it_went(kpod: Kpod, box: str, tmp_path: Path) -> None:
    tree = a_tree(tmp_path)
    done(kpod("cp", tree, f"{box}:/srv"))
    assert inside(kpod, "stat", "-c", "%a %u %g", "/srv/below/deep/owned") == "644 1234 5678\n"
    done(kpod("cp", "-a", f"{box}:/srv", tmp_path / "back"))
    assert shown(tmp_path / "back") == shown(tree)
    assert os.getxattr(tmp_path / "back/below/deep/owned", "user.note") == b"kept"


def test_without_archive_nothing_comes_that_gives_rights_on_the_node(kpod: Kpod, box: str, tmp_path: Path) -> None:
    done(kpod("cp", a_tree(tmp_path), f"{box}:/srv"))
    said = kpod("cp", f"{box}:/srv", tmp_path / "back")
    assert said.status == 0
    assert "fifo is a device or FIFO and was left out" in said.err
    assert oct((tmp_path / "back/file").stat().st_mode) == "0o100751"
    assert oct((tmp_path / "back/below").stat().st_mode) == "0o40750"
    assert not (tmp_path / "back/below/fifo").exists()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("f", "/d", "/d/f"),
        ("f", "/d/", "/d/f"),
        ("f", "/d/new", "/d/new"),
        ("f", "/d/there", "/d/there"),
        ("f", "d", "/d/f"),
        ("f", "/dlink", "/d/f"),
        ("f", "/dlink/new", "/d/new"),
        ("f", "/flink", "/d/there"),
        ("f", "/vol", "/vol/f"),
        ("t", "/d", "/d/t/f"),
        ("t", "/new", "/new/f"),
        ("t", "/new/", "/new/f"),
        ("t/.", "/d", "/d/f"),
        ("t/.", "/new", "/new/f"),
        ("t/", "/d", "/d/t/f"),
    ],
)
def test_where_a_copy_goes(kpod: Kpod, box: str, tmp_path: Path, source: str, target: str, expected: str) -> None:
    inside(kpod, "sh", "-c", "mkdir /d; echo old > /d/there; ln -s /d /dlink; ln -s d/there /flink")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").write_text("new")
    (tmp_path / "f").write_text("new")
    done(kpod("cp", f"{tmp_path}/{source}", f"{box}:{target}"))
    assert inside(kpod, "cat", expected) == "new"


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("f", "/no/such", "No such file or directory"),
        ("f", "/new/", "there is no such directory"),
        ("t", "/no/such", "No such file or directory"),
        ("t", "/there", "it is a file, and a directory cannot replace it"),
        ("t", "/d2", "is there, and no directory"),
        ("f", "/d3", "a directory is there, and a file cannot replace it"),
        ("f", "/proc/sys/kernel/hostname", "the kernel's own"),
        ("f", "/sys", "the kernel's own"),
        ("missing", "/", "No such file or directory"),
    ],
)
def test_what_cannot_be_is_refused(kpod: Kpod, box: str, tmp_path: Path, source: str, target: str, why: str) -> None:
    inside(kpod, "sh", "-c", "echo old > /there; mkdir /d2 /d3 /d3/f; echo > /d2/t")
    (tmp_path / "t").mkdir()
    (tmp_path / "f").write_text("new")
    said = kpod("cp", tmp_path / source, f"{box}:{target}")
    assert (said.status, said.out) == (1, "")
    assert why in said.err
    assert inside(kpod, "cat", "/there") == "old\n"


def test_tar_streams_pass_both_ways(kpod: Kpod, box: str, tmp_path: Path) -> None:
    inside(kpod, "sh", "-c", "mkdir -p /srv/a /dst; echo one > /srv/a/f; ln -s f /srv/a/l")
    read = subprocess.run(kpod.argv("cp", f"{box}:/srv", "-"), env=kpod.environment(), capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(read.stdout)) as archive:
        assert archive.getnames() == ["srv", "srv/a", "srv/a/f", "srv/a/l"]
    done(kpod("cp", "-", f"{box}:/dst", stdin=read.stdout))
    assert inside(kpod, "cat", "/dst/srv/a/l") == "one\n"
    compressed = subprocess.run(["gzip", "-c"], input=read.stdout, capture_output=True, check=True).stdout
    done(kpod("cp", "-", f"{box}:/vol", stdin=compressed))
    assert (tmp_path / "volume/srv/a/f").read_text() == "one\n"


def test_a_link_is_itself_unless_followed(kpod: Kpod, box: str, tmp_path: Path) -> None:
    inside(kpod, "sh", "-c", "echo inside > /etc/secret; ln -s /etc/secret /l")
    done(kpod("cp", f"{box}:/l", tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "/etc/secret"
    done(kpod("cp", "-L", f"{box}:/l", tmp_path / "followed"))
    assert (tmp_path / "followed").read_text() == "inside\n"


def test_what_the_node_mounts_as_a_file_is_written_in_place(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "single").write_text("before, and longer")
    inode = (tmp_path / "single").stat().st_ino
    flags = ("-v", f"{tmp_path}/single:/single", "-v", f"{tmp_path}/single:/fixed:ro")
    (tmp_path / "f").write_text("after")
    with running(kpod, *flags):
        done(kpod("cp", tmp_path / "f", "box:/single"))
        assert inside(kpod, "cat", "/single") == "after"
        assert ((tmp_path / "single").read_text(), (tmp_path / "single").stat().st_ino) == ("after", inode)
        assert "Read-only file system" in kpod("cp", tmp_path / "f", "box:/fixed").err


def test_a_read_only_root_is_kept_and_its_volumes_are_written(kpod: Kpod, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "f").write_text("new")
    with running(kpod, "--read-only", "-v", f"{tmp_path}/volume:/vol"):
        assert "Read-only file system" in kpod("cp", tmp_path / "f", "box:/").err
        done(kpod("cp", tmp_path / "f", "box:/vol"))
        assert (tmp_path / "volume/f").read_text() == "new"
        assert kpod("stop", "-t", "0", "box").status == 0
        assert "its root filesystem is read-only" in kpod("cp", tmp_path / "f", "box:/").err


def test_a_stopped_container_has_its_files_but_not_its_volumes(kpod: Kpod, box: str, tmp_path: Path) -> None:
    inside(kpod, "sh", "-c", "echo left > /left; echo v > /vol/v")
    assert kpod("stop", "-t", "0", box).status == 0
    done(kpod("cp", f"{box}:/left", tmp_path / "left"))
    assert (tmp_path / "left").read_text() == "left\n"
    done(kpod("cp", tmp_path / "left", f"{box}:/again"))
    done(kpod("cp", f"{box}:again", tmp_path / "again"))
    assert (tmp_path / "again").read_text() == "left\n"
    assert "because /vol is a volume" in kpod("cp", f"{box}:/vol/v", tmp_path / "v").err


def test_the_whole_root_is_copied_without_what_the_kernel_shows(kpod: Kpod, box: str, tmp_path: Path) -> None:
    inside(kpod, "sh", "-c", "mkfifo /tmp/f; nc -l -U /tmp/s & sleep 0.1")
    said = kpod("cp", f"{box}:/", tmp_path / "root")
    assert said.status == 0, said.err
    assert os.listdir(tmp_path / "root/proc") == os.listdir(tmp_path / "root/sys") == []
    assert (tmp_path / "root/bin/busybox").exists() or (tmp_path / "root/bin").is_symlink()


def test_links_lead_nowhere_outside(kpod: Kpod, box: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("host")
    up = "../" * 40
    inside(
        kpod,
        "sh",
        "-c",
        f"ln -s {up}{canary} /tmp/up; ln -s {canary} /tmp/abs; ln -s / /tmp/root; ln -s /proc/1/root /tmp/magic",
    )
    for link in ("/tmp/up", "/tmp/abs", f"/tmp/root/{canary}", f"/tmp/magic/{canary}"):
        assert kpod("cp", "-L", f"{box}:{link}", tmp_path / "out").status == 1
    assert not (tmp_path / "out").exists()
    (tmp_path / "f").write_text("evil")
    for link in ("/tmp/up", "/tmp/abs", f"/tmp/magic/{canary}"):
        kpod("cp", tmp_path / "f", f"{box}:{link}")
    assert canary.read_text() == "host"


def test_words_that_make_no_sense(kpod: Kpod, tmp_path: Path) -> None:
    assert kpod("cp", "a:/x", "b:/y").status == 2
    assert kpod("cp", "/x", "/y").status == 2
    assert kpod("cp", "nobody:/x", tmp_path).err.startswith("kpod: container nobody not found")


@pytest.mark.parametrize("kpod", ["daemon"], indirect=True)
def test_an_interrupted_copy_leaves_nobody_at_work(kpod: Kpod, box: str, tmp_path: Path) -> None:
    inside(kpod, "dd", "if=/dev/zero", "of=/huge", "bs=1M", "count=1", "seek=1000000")
    for _ in range(9):  # more than may be at work at once
        with kpod.start("cp", f"{box}:/huge", "-") as process:
            assert process.stdout is not None
            assert process.stdout.read(512) != ""  # it is under way
            process.send_signal(signal.SIGINT)  # nobody reads on; without a reader it might end by that before it hears us
            assert process.wait(60) == 130
    done(kpod("cp", f"{box}:/etc/passwd", tmp_path / "passwd"))


@pytest.mark.parametrize("kpod", ["daemon"], indirect=True)
def test_a_container_that_ends_meanwhile_is_told(kpod: Kpod, box: str) -> None:
    with subprocess.Popen(
        kpod.argv("cp", "-", f"{box}:/tmp"), env=kpod.environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as made:
            made.addfile(tarfile.TarInfo("first"))
            made.addfile(tarfile.TarInfo("last"))
        process.stdin.write(archive.getvalue()[:512])
        process.stdin.flush()
        wait_for(lambda: kpod("exec", box, "--", "test", "-e", "/tmp/first").status == 0)
        assert kpod("stop", "-t", "0", box).status == 0
        process.stdin.write(archive.getvalue()[512:])
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert b"ended while files were copied" in err
