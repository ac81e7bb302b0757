"""kpod save to a pipe: the archive and nothing else, or nothing and a reason."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kpod_fake import FakeNode, Kpod

from criollo.kpod.ends import OUTPUT

WORDS = ("save", "x:1")


def sent(node: FakeNode) -> dict[str, list[str]]:
    return node.http_requests[0].query


def test_save_without_a_file_asks_for_a_stream(kpod: Kpod, node: FakeNode) -> None:
    node.archive = b"a" * 3_000_000
    said = kpod(*WORDS, "--format", "docker-archive", "y:2")
    assert (said.status, len(said.out), said.err) == (0, 3_000_000, "")
    assert sent(node) == {"format": ["docker-archive"], "image": ["x:1", "y:2"]}


def test_a_stream_that_fails_has_status_1_and_one_line(kpod: Kpod, node: FakeNode) -> None:
    node.archive = b"half"
    node.archive_error = "the disk is\nfull"
    said = kpod(*WORDS, "-o", "-")
    assert (said.status, said.err) == (1, "kpod: the disk is\\nfull\n")


def test_a_stream_that_is_cut_is_no_success(kpod: Kpod, node: FakeNode) -> None:
    node.archive_is_cut = True
    assert "is the daemon running" in kpod(*WORDS).err


def test_a_terminal_or_a_directory_gets_no_stream(kpod: Kpod, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kpod(*WORDS, "--format", "dir").status == 2
    monkeypatch.setattr(os, "isatty", lambda fd: fd == OUTPUT)
    assert kpod(*WORDS).status == 2
    assert node.http_requests == []


def test_load_takes_a_dir_by_its_transport(kpod: Kpod, node: FakeNode, tmp_path: Path) -> None:
    assert kpod("load", "-i", f"dir:{tmp_path}", "--name", "x.y/z:1").status == 0
    assert sent(node) == {"path": [str(tmp_path)], "name": ["x.y/z:1"]}


def test_what_is_spooled_waits_where_the_configuration_says(
    kpod: Kpod, node: FakeNode, config: Path, tmp_path: Path, feed: Callable[[bytes], None]
) -> None:
    (tmp_path / "big").mkdir()
    config.write_text(config.read_text() + f'[crio.image]\nbig_files_temporary_dir = "{tmp_path}/big"\n')
    feed(b"tar")
    assert kpod("load").status == 0
    assert Path(sent(node)["path"][0]).parents[1] == tmp_path / "big"
    assert os.listdir(tmp_path / "big") == []
