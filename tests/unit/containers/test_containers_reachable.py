"""Files of the node that are read for a container: who is asked whether they answer."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from criollo.containers.context import Containers
from criollo.containers.reachable import check_answers
from criollo.errors import NotFound
from criollo.workers.messages import Probe


class Workers:
    def __init__(self, kind: str = "file") -> None:
        self.asked: list[tuple[str, float]] = []
        self._kind = kind

    async def probe(self, path: str, timeout_s: float) -> Probe:
        self.asked.append((path, timeout_s))
        return Probe(kind=self._kind)


def check(workers: Workers, path: str) -> None:
    asyncio.run(check_answers(cast(Containers, SimpleNamespace(workers=workers, probe_s=7)), path, "profile"))


def test_what_is_on_the_nodes_own_disks_asks_nobody() -> None:
    workers = Workers()
    check(workers, "/etc/passwd")
    check(workers, "/no/such/file")
    assert workers.asked == []


def test_a_worker_looks_at_everything_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/version")
    path, workers = str(tmp_path / "link"), Workers()
    check(workers, path)
    assert workers.asked == [(path, 7)]
    with pytest.raises(NotFound, match=r"profile.*link is not there"):
        check(Workers("missing"), path)
