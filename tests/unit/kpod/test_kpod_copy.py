"""`kpod copy` as a person types it; the copying itself is the image room's."""

import json
from pathlib import Path

import pytest
from kpod_fake import Kpod
from support.images import file, make_image, make_index, write_oci_archive, write_oci_layout

from criollo.errors import Invalid
from criollo.kpod.copy import End, parse_end

HERE, THERE = make_image([[file("a")]]), make_image([[file("b")]], platform={"os": "linux", "architecture": "s390x"})
INDEX = make_index([HERE, THERE])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / ".config/containers").mkdir(parents=True)
    write_policy(tmp_path, "insecureAcceptAnything")
    return tmp_path


def write_policy(home: Path, kind: str) -> None:
    (home / ".config/containers/policy.json").write_text(json.dumps({"default": [{"type": kind}]}))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("docker://a.example/b:v1", End("docker", "", "a.example/b:v1")),
        ("localhost:5000/b", End("docker", "", "localhost:5000/b")),
        ("busybox", End("docker", "", "busybox")),
        ("oci:/a/b", End("oci", "/a/b", "")),
        ("oci:/a/../b:c:d", End("oci", "/b", "c:d")),
        ("oci-archive:/a.tar:example.com/x:1", End("oci-archive", "/a.tar", "example.com/x:1")),
        ("docker-archive:/a.tar:app:v1", End("docker-archive", "/a.tar", "app:v1")),
        ("docker-archive:/a.tar:@1", End("docker-archive", "/a.tar", "@1")),
        ("dir:/a:b", End("dir", "/a:b", "")),
    ],
)
def test_ends_are_words_of_other_tools(text: str, end: End) -> None:
    assert parse_end(text, "source") == end


@pytest.mark.parametrize(
    "text", ["oci:", "oci::x", "dir:", "docker-archive:", "docker-daemon:x", "containers-storage:x", "oci:/a:b\x1b", "oci:/a:é"]
)
def test_what_is_no_end_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="source"):
        parse_end(text, "source")


def test_an_archive_becomes_a_layout_and_its_digest_is_printed(home: Path, kpod: Kpod) -> None:
    write_oci_archive(home / "a.tar", {"x": INDEX})
    said = kpod("copy", "--all", "--digestfile", home / "digest", f"oci-archive:{home}/a.tar", f"oci:{home}/layout:v1")
    assert (said.status, said.out) == (0, f"{INDEX.digest}\n")
    assert "4 of 4 blobs sent" in said.err
    assert (home / "digest").read_text() == INDEX.digest
    again = kpod("copy", "-q", "--all", f"oci-archive:{home}/a.tar:x", f"oci:{home}/layout:v2")
    assert (again.status, again.err) == (0, "")
    assert len(json.loads((home / "layout/index.json").read_text())["manifests"]) == 2
    assert not [path.name for path in home.iterdir() if path.name.endswith(".kpod")]


def test_a_platform_is_chosen(home: Path, kpod: Kpod) -> None:
    source = f"oci:{write_oci_layout(home / 'source', {'x': INDEX})}"
    assert kpod("copy", "-q", source, f"dir:{home}/1").out.strip() == HERE.digest
    assert kpod("copy", "-q", "--platform", "linux/s390x", source, f"dir:{home}/2").out.strip() == THERE.digest
    assert kpod("copy", "-q", "--platform", "linux/mips", source, f"dir:{home}/3").status == 1
    assert kpod("copy", "--all", "--platform", "linux/s390x", source, f"dir:{home}/4").status == 2
    assert kpod("copy", "--platform", "s390x", source, f"dir:{home}/4").status == 1


def test_the_policy_of_the_file_is_asked_first(home: Path, kpod: Kpod) -> None:
    source = f"oci:{write_oci_layout(home / 'source', {'x': INDEX})}"
    write_policy(home, "reject")
    said = kpod("copy", source, f"dir:{home}/1")
    assert said.status == 1
    assert "reject" in said.err
    (home / ".config/containers/policy.json").unlink()
    assert not (home / "1").exists()


def test_what_is_not_there_is_told(home: Path, kpod: Kpod) -> None:
    for source in (f"oci:{home}/none", f"oci-archive:{home}/none", f"dir:{home}/none", f"oci-archive:{home}"):
        said = kpod("copy", source, f"dir:{home}/out")
        assert (said.status, said.out) == (1, "")
        assert said.err.startswith("kpod: ")
        assert not (home / "out").exists()


def test_flags_of_registries_want_a_registry(home: Path, kpod: Kpod) -> None:
    for flag in ("--src-creds=a:b", "--src-tls-verify=false", "--dest-cert-dir=/", "--dest-tls-verify=true"):
        refused = kpod("copy", flag, f"dir:{home}/a", f"dir:{home}/b")
        assert (refused.status, "for registries, not for files" in refused.err) == (2, True)
