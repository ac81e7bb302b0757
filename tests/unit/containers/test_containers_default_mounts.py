"""mounts.conf: what is read of it, and what is copied."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given as for_any
from hypothesis import strategies as st

from criollo.containers.context import Containers
from criollo.containers.default_mounts import MOST_BYTES, Line, given, parse_mounts
from criollo.containers.rootfs import Ground
from criollo.errors import Exhausted, Invalid
from criollo.oci.runtime_spec import Mount
from criollo.workers.duplicate import duplicate
from criollo.workers.messages import Duplicated, DuplicateJob


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


class Workers:
    """Copies at once, in this process."""

    async def duplicate(self, job: DuplicateJob, timeout_s: float) -> Duplicated:
        return duplicate(job)


def mounts(tmp_path: Path, text: str | None) -> tuple[Mount, ...]:
    conf = tmp_path / "mounts.conf"
    if text is not None:
        conf.write_text(text)
    containers = cast(Containers, SimpleNamespace(workers=Workers(), probe_s=60))
    ground = Ground(tmp_path, tmp_path / "bundle", (os.getuid(), os.getgid()))
    return asyncio.run(given(containers, str(conf), ground))


def test_each_line_is_a_copy_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    one, two = mounts(tmp_path, f"{tmp_path}/key:/etc/key\n{tmp_path}/key:/other\n")
    assert [(each.destination, Path(each.source).read_text(), "ro" in each.options) for each in (one, two)] == [
        ("/etc/key", "k", True),
        ("/other", "k", True),
    ]
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o700


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert mounts(tmp_path, None) == ()


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="/no/such/source"):
        mounts(tmp_path, "/no/such/source:/x\n")


def test_all_sources_together_may_not_be_too_large(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(MOST_BYTES - 1)
    (tmp_path / "two").write_text("22")
    with pytest.raises(Exhausted, match=f"default mount {tmp_path}/two: more than 16 MiB"):
        mounts(tmp_path, f"{tmp_path}/big:/x\n{tmp_path}/two:/y\n")
