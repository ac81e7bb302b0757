"""How a runtime's program is called, and what its answers mean: a program that notes its words and answers as told."""

import asyncio
import json
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from criollo.errors import TimedOut, ToolFailed
from criollo.linux.cgroup import Driver
from criollo.monitor.exits import Watched
from criollo.runtimes.oci import Handler, OciRuntime

ID = "c" * 64
PROGRAM = """#!/bin/sh
echo "$*" >> {place}/calls
for word in "$@"; do case $word in --*) ;; *) verb=$word; break;; esac; done
[ "$1" = --version ] && verb=version
[ -e {place}/$verb.stdin ] && cat > {place}/$verb.stdin
[ -e {place}/$verb.forced ] && case "$*" in *--force*) exit 0;; esac
cat {place}/$verb.stdout 2>/dev/null
cat {place}/$verb.stderr >&2 2>/dev/null
[ -e {place}/$verb.hangs ] && sleep 1000
exit $(cat {place}/$verb.status 2>/dev/null || echo 0)
"""


class Cgroups:
    """Remembers what was removed."""

    is_unified = False

    def __init__(self) -> None:
        self.removed: list[str] = []

    def exists(self, path: str) -> bool:
        return True

    def kill(self, path: str) -> bool:
        return True

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def expect_moves(self) -> None:
        pass


class Monitors:
    """Stands for conmon: nothing is created here."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, container_id: str) -> None:
        self.forgotten.append(container_id)


class Told:
    """A handler whose program does as it is told."""

    def __init__(self, place: Path, *, name: str = "crun") -> None:
        self.place, self.program = place, place / name
        self.program.write_text(PROGRAM.format(place=place))
        self.program.chmod(0o755)
        self.cgroups: Any = Cgroups()
        self.monitors: Any = Monitors()
        self.answer("version", stdout=f"{name} version 1.28\n")
        self.answer("features", stdout='{"ociVersionMin": "1.0.0"}')
        handler = Handler(name=name, path=self.program, root=place / "state", driver=Driver.CGROUPFS, verb_limit_s=10)
        self.runtime = OciRuntime(handler, self.monitors, self.cgroups)

    def answer(self, verb: str, *, stdout: str = "", stderr: str = "", status: int = 0) -> None:
        for name, text in (("stdout", stdout), ("stderr", stderr), ("status", str(status))):
            (self.place / f"{verb}.{name}").write_text(text)

    def heard(self) -> list[str]:
        path = self.place / "calls"
        found = [line.replace(f"--root={self.place}/state ", "") for line in path.read_text().splitlines()]
        path.unlink()
        return found

    def run(self, work: Coroutine[Any, Any, Any], *, probed: bool = False) -> Any:
        async def main() -> Any:
            if probed:
                await self.runtime.probe()
                self.heard()
            return await work

        try:
            return asyncio.run(main())
        finally:
            self.runtime.close()


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


def watched(pid: int = 0, started: int = 0) -> Watched:
    return Watched(ID, Path("/none"), pid, started, 0, 0)


def test_probe_asks_for_version_and_features(told: Told) -> None:
    found = told.run(told.runtime.probe())
    assert told.heard() == ["--version", "features"]
    assert (found.version.name, found.version.numbers) == ("crun", (1, 28))
    assert (found.features, found.warning) == ({"ociVersionMin": "1.0.0"}, "")


@pytest.mark.parametrize("answer", [{"status": 1}, {"stdout": "no JSON"}])
def test_a_program_without_features_has_none(told: Told, answer: dict[str, Any]) -> None:
    told.answer("features", **answer)
    assert told.run(told.runtime.probe()).features == {}


def test_a_program_that_fails_at_its_version_is_no_runtime(told: Told) -> None:
    told.answer("version", stderr="cannot load a library", status=127)
    with pytest.raises(ToolFailed, match="cannot load a library"):
        told.run(told.runtime.probe())


def test_a_version_with_holes_is_told(told: Told) -> None:
    told.answer("version", stdout="crun version 1.4.1\n")
    assert "published holes" in told.run(told.runtime.probe()).warning


def test_every_verb_names_the_state_directory_and_the_container(told: Told) -> None:
    told.run(told.runtime.start(ID, has_poststart=True))
    assert (told.place / "calls").read_text() == f"--root={told.place}/state start {ID}\n"


def test_resources_of_an_update_go_by_stdin(told: Told) -> None:
    (told.place / "update.stdin").touch()
    told.run(told.runtime.update(ID, b'{"cpu": {}}'))
    assert told.heard() == [f"update --resources - {ID}"]
    assert json.loads((told.place / "update.stdin").read_text()) == {"cpu": {}}


def test_a_refusal_is_told_in_the_runtimes_last_words_alone(told: Told) -> None:
    told.answer("start", stderr='time="x" level=info msg="hello"\ntime="x" level=error msg="exec: no such file"\n', status=1)
    with pytest.raises(ToolFailed, match=f"cannot start container {ID}.*: exec: no such file$"):
        told.run(told.runtime.start(ID, has_poststart=True))


def test_a_verb_beyond_its_limit_is_killed(tmp_path: Path) -> None:
    told = Told(tmp_path)
    (tmp_path / "start.hangs").touch()
    handler = Handler(name="crun", path=told.program, root=tmp_path / "state", verb_limit_s=0.2)
    with pytest.raises(TimedOut, match=f"cannot start container {ID}"):
        asyncio.run(OciRuntime(handler, told.monitors, told.cgroups).start(ID, has_poststart=True))


def test_state_is_the_runtimes_view(told: Told) -> None:
    told.answer("state", stdout=json.dumps({"ociVersion": "1.0", "id": ID, "status": "running", "pid": 7}))
    found = told.run(told.runtime.state(ID))
    assert told.heard() == [f"state {ID}"]
    assert (found.status, found.pid) == ("running", 7)


def test_a_container_that_the_runtime_does_not_know_has_no_state(told: Told) -> None:
    told.answer("state", stderr=f"container {ID} does not exist", status=1)
    assert told.run(told.runtime.state(ID)) is None


@pytest.mark.parametrize("answer", [{"stderr": "out of memory", "status": 1}, {"stdout": "no JSON"}])
def test_an_answer_that_is_no_state_is_an_error(told: Told, answer: dict[str, Any]) -> None:
    told.answer("state", **answer)
    with pytest.raises(ToolFailed, match="ask for the state"):
        told.run(told.runtime.state(ID))


def test_deleting_tries_the_plain_verb_alone(told: Told) -> None:
    told.run(told.runtime.delete(ID, cgroup_parent="/kubepods/p"))
    assert told.heard() == [f"delete {ID}"]
    assert told.cgroups.removed == [f"/kubepods/p/crio-{ID}"]
    assert told.monitors.forgotten == [ID]


def test_deleting_what_is_not_there_is_success(told: Told) -> None:
    told.answer("delete", stderr=f"container {ID} does not exist", status=1)
    told.run(told.runtime.delete(ID, cgroup_parent="/kubepods/p", force=True))
    assert told.heard() == [f"delete {ID}"]


def test_one_that_runs_is_deleted_by_force_only_where_asked(told: Told) -> None:
    told.answer("delete", stderr="it is running", status=1)
    (told.place / "delete.forced").touch()
    with pytest.raises(ToolFailed, match="it is running"):
        told.run(told.runtime.delete(ID, cgroup_parent="/kubepods/p"))
    assert told.cgroups.removed == []
    told.run(told.runtime.delete(ID, cgroup_parent="/kubepods/p", force=True))
    assert told.heard() == [f"delete {ID}", f"delete {ID}", f"delete --force {ID}"]


def test_what_a_forced_delete_could_not_do_leaves_no_cgroups(told: Told) -> None:
    told.answer("delete", stderr="it is stuck", status=1)
    with pytest.raises(ToolFailed, match="it is stuck"):
        told.run(told.runtime.delete(ID, cgroup_parent="/kubepods/p", force=True))
    assert told.cgroups.removed == [f"/kubepods/p/crio-{ID}"]


def test_signals_to_processes_of_this_kernel_need_no_program(told: Told) -> None:
    assert told.run(told.runtime.kill(watched(pid=2**22 - 1), signal.SIGTERM), probed=True) is False
    assert not (told.place / "calls").exists()


def test_signals_to_others_are_sent_by_the_program(tmp_path: Path) -> None:
    told = Told(tmp_path, name="runsc")
    assert told.run(told.runtime.kill(watched(), signal.SIGTERM), probed=True) is True
    assert told.heard() == [f"kill {ID} 15"]


def test_a_signal_that_the_program_cannot_send_to_a_dead_one_is_no_error(tmp_path: Path) -> None:
    told = Told(tmp_path, name="runsc")
    told.answer("kill", stderr="not running", status=1)
    assert told.run(told.runtime.kill(watched(), signal.SIGTERM), probed=True) is False


def test_a_signal_that_the_program_cannot_send_to_a_living_one_is_an_error(tmp_path: Path) -> None:
    told = Told(tmp_path, name="runsc")
    told.answer("kill", stderr="no permission", status=1)
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    with pytest.raises(ToolFailed, match="no permission"):
        told.run(told.runtime.kill(watched(os.getpid(), started), signal.SIGTERM), probed=True)
