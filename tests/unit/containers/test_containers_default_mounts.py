"""mounts.conf: what is read of it, and what is copied."""

import os
from pathlib import Path

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from criollo.containers import default_mounts
from criollo.containers.default_mounts import Line, given, parse_mounts
from criollo.errors import Exhausted, Invalid


def test_a_line_is_a_pair_or_one_path_for_both() -> None:
    text = "# comment\n\n/a:/b\n /c/ \n"
    assert parse_mounts(text, "f") == [Line("/a", "/b"), Line("/c", "/c")]


@pytest.mark.parametrize("text", ["/a:/b:/c", "a:/b", "/a:b", "/a:/", "/a:/proc/x", "/a:/b\n/c:/b", "/a\0:/b", ":"])
def test_a_line_that_cannot_be_is_refused_with_its_number(text: str) -> None:
    with pytest.raises(Invalid, match="f line"):
        parse_mounts(text, "f")


@for_any(st.text(st.sampled_from("/ab:#.\n \0é"), max_size=40))
def test_any_text_is_lines_or_refused(text: str) -> None:
    try:
        found = parse_mounts(text, "f")
    except Invalid:
        return
    assert all(line.destination.startswith("/") and line.destination != "/" for line in found)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A source with what a directory may have."""
    source = tmp_path / "secrets"
    (source / "below").mkdir(parents=True)
    (source / "key").write_text("k")
    (source / "key").chmod(0o640)
    (source / "below" / "deep").write_text("d")
    (source / "link").symlink_to("key")
    (source / "gone").symlink_to("nowhere")
    (source / "loop").symlink_to(".")
    os.mkfifo(source / "pipe")
    return source


def conf(tmp_path: Path, text: str) -> str:
    (tmp_path / "mounts.conf").write_text(text)
    return str(tmp_path / "mounts.conf")


def owner() -> tuple[int, int]:
    return os.getuid(), os.getgid()


def test_a_source_is_copied_with_its_modes_and_links_followed(tmp_path: Path, secrets: Path) -> None:
    (mount,) = given(conf(tmp_path, f"{secrets}:/run/secrets\n"), tmp_path / "bundle", owner())
    copy = Path(mount.source)
    assert (mount.destination, "ro" in mount.options) == ("/run/secrets", True)
    assert sorted(os.listdir(copy)) == ["below", "key", "link"]
    assert (copy / "link").read_text() == "k"
    assert not (copy / "link").is_symlink()
    assert (copy / "below" / "deep").read_text() == "d"
    assert (copy / "key").stat().st_mode & 0o777 == 0o640
    (secrets / "key").write_text("changed")
    assert (copy / "key").read_text() == "k"


def test_a_file_may_be_a_source(tmp_path: Path, secrets: Path) -> None:
    (mount,) = given(conf(tmp_path, f"{secrets}/key:/etc/key\n"), tmp_path / "bundle", owner())
    assert Path(mount.source).read_text() == "k"


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert given(str(tmp_path / "none"), tmp_path / "bundle", owner()) == []


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="/no/such/source"):
        given(conf(tmp_path, "/no/such/source:/x\n"), tmp_path / "bundle", owner())


def test_a_source_may_not_be_too_large(tmp_path: Path, secrets: Path) -> None:
    with open(secrets / "big", "wb") as file:
        file.truncate(default_mounts.MOST_BYTES + 1)
    with pytest.raises(Exhausted, match="16 MiB"):
        given(conf(tmp_path, f"{secrets}:/x\n"), tmp_path / "bundle", owner())
