"""Runtimes and monitors that fail, hang or lie: programs made for it. Nothing may be left of them."""

import asyncio
import os
import signal

import pytest
from handmade import PARENT, Node
from support.waiting import until

from criollo.errors import HostFailed, Invalid, TimedOut, ToolFailed, Unavailable
from criollo.runtimes.handlers import open_handlers
from criollo.runtimes.oci import OciRuntime

pytestmark = pytest.mark.node


def _program(node: Node, name: str, script: str) -> str:
    path = node.root / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def _fails(node: Node, script: str) -> str:
    """A runtime that behaves as crun except for one verb's script."""
    return _program(node, "fakert", f'{script}\nexec /usr/bin/crun "$@"')


def _create_error(node: Node, runtime: OciRuntime, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        asyncio.run(runtime.create(node.request(["sleep", "1000"])))
    return str(caught.value)


def test_runtime_refusal_is_told_in_its_words(node: Node, runtime: OciRuntime) -> None:
    request = node.request(["nosuchprogram"])
    with pytest.raises(ToolFailed, match="nosuchprogram") as caught:
        asyncio.run(node.run(runtime, request))
    assert "level=error" not in str(caught.value)
    asyncio.run(runtime.delete(request.container_id, cgroup_parent=PARENT, force=True))


def test_broken_spec_is_told(node: Node, runtime: OciRuntime) -> None:
    request = node.request(["true"])
    (request.bundle / "config.json").write_text("{")
    with pytest.raises(ToolFailed, match="cannot create container"):
        asyncio.run(runtime.create(request))


def test_failing_runtime_is_told_with_its_stderr(node: Node) -> None:
    runtime = node.runtime(_fails(node, 'case " $* " in *" create "*) echo "no more room at the inn" >&2; exit 1;; esac'))
    assert "no more room at the inn" in _create_error(node, runtime, ToolFailed)


def test_what_looks_like_a_secret_in_its_stderr_is_not_told(node: Node) -> None:
    runtime = node.runtime(_fails(node, 'case " $* " in *" create "*) echo "cannot log in: password=hush" >&2; exit 1;; esac'))
    told = _create_error(node, runtime, ToolFailed)
    assert "cannot log in" in told
    assert "hush" not in told


def test_silent_failure_says_so(node: Node) -> None:
    runtime = node.runtime(_fails(node, 'case " $* " in *" create "*) exit 1;; esac'))
    assert "without a word" in _create_error(node, runtime, ToolFailed)


def test_hanging_runtime_is_killed_at_its_limit(node: Node) -> None:
    script = 'case " $* " in *" create "*) sleep 1000 & sleep 1000;; esac'
    runtime = node.runtime(_fails(node, script), create_limit_s=0.5)
    assert "within 0.5 s" in _create_error(node, runtime, TimedOut)


def test_half_made_container_is_removed_at_the_limit(node: Node) -> None:
    script = 'case " $* " in *" create "*) /usr/bin/crun "$@"; exec sleep 1000;; esac'
    runtime = node.runtime(_fails(node, script), create_limit_s=1.0)
    _create_error(node, runtime, TimedOut)


def test_cancelled_create_leaves_nothing(node: Node) -> None:
    runtime = node.runtime(_fails(node, f'case " $* " in *" create "*) touch {node.root}/reached; exec sleep 1000;; esac'))

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runtime.create(node.request(["sleep", "1000"])))
            await until((node.root / "reached").exists)
            task.cancel()

    asyncio.run(scenario())


def test_create_cancelled_at_any_moment_leaves_nothing(node: Node) -> None:
    async def scenario(rounds: int) -> None:
        runtime = node.runtime("crun")
        request = node.request(["sleep", "1000"])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(runtime.create(request))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await asyncio.sleep(rounds / 2000)
            task.cancel()
        if not task.cancelled():
            await node.remove(runtime, node.watched(request, task.result()))

    for rounds in (0, 1, 2, 4, 8, 16, 32):
        asyncio.run(scenario(rounds))


def test_hanging_verbs_are_killed_at_their_limit(node: Node) -> None:
    script = 'case " $* " in *" start "*|*" state "*|*" update "*) exec sleep 1000;; esac'
    runtime = node.runtime(_fails(node, script), verb_limit_s=0.3)

    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = node.watched(request, await runtime.create(request))
        for call in (
            runtime.start(request.container_id, has_poststart=False),
            runtime.state(request.container_id),
            runtime.update("x", b"{}"),
        ):
            with pytest.raises(TimedOut, match=r"still running after 0\.3 s"):
                await call
        await node.remove(node.runtime("crun"), watched)  # which has time

    asyncio.run(scenario())


def test_hanging_delete_still_frees_the_cgroups(node: Node) -> None:
    runtime = node.runtime(_fails(node, 'case " $* " in *" delete "*) exec sleep 1000;; esac'), verb_limit_s=0.3)

    async def scenario() -> None:
        request = node.request(["sleep", "1000"])
        watched = node.watched(request, await runtime.create(request))
        with pytest.raises(TimedOut):
            await runtime.delete(request.container_id, cgroup_parent=PARENT, force=True)
        assert not node.hierarchies.exists(watched.cgroup)
        await runtime.wait_exit(watched)
        await node.runtime("crun").delete(request.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_monitor_that_cannot_start(node: Node) -> None:
    runtime = node.runtime("crun", conmon=node.conmon_of("/nonexistent/conmon"))
    assert "/nonexistent/conmon" in _create_error(node, runtime, HostFailed)


def test_monitor_that_dies_is_told_with_its_stderr(node: Node) -> None:
    conmon = node.conmon_of(_program(node, "conmon", "echo 'cannot do this' >&2; exit 3"))
    assert "cannot do this" in _create_error(node, node.runtime("crun", conmon=conmon), ToolFailed)


@pytest.mark.parametrize(
    "answer",
    ["", "{", '{"pid": 0}', '{"pid": 1}', '{"pid": -7}', '{"pid": 1099511627776}', '{"pid": "2"}', "[]", '{"exit_code": 5}'],
)
def test_monitor_that_lies_is_not_believed(node: Node, answer: str) -> None:
    conmon = node.conmon_of(_program(node, "conmon", f"echo '{answer}' > /proc/self/fd/$_OCI_SYNCPIPE; sleep 1000"))
    assert "conmon answered nonsense" in _create_error(node, node.runtime("crun", conmon=conmon), ToolFailed)


def test_pid_of_somebody_else_is_not_believed(node: Node) -> None:
    conmon = node.conmon_of(
        _program(node, "conmon", f'echo "{{\\"pid\\": {os.getpid()}}}" > /proc/self/fd/$_OCI_SYNCPIPE; sleep 1000')
    )
    assert "is not its child" in _create_error(node, node.runtime("crun", conmon=conmon), ToolFailed)


def test_monitor_that_floods_is_cut(node: Node) -> None:
    conmon = node.conmon_of(_program(node, "conmon", "exec yes > /proc/self/fd/$_OCI_SYNCPIPE"))
    _create_error(node, node.runtime("crun", conmon=conmon), ToolFailed)
    endless = node.conmon_of(_program(node, "conmon", "head -c 1000000 /dev/zero > /proc/self/fd/$_OCI_SYNCPIPE; sleep 1000"))
    assert "nonsense" in _create_error(node, node.runtime("crun", conmon=endless), ToolFailed)


def test_log_path_that_conmon_would_cut_is_refused(node: Node, runtime: OciRuntime) -> None:
    with pytest.raises(Invalid, match="without a colon"):
        asyncio.run(runtime.create(node.request(["true"], log_path="/tmp/a:b")))


@pytest.mark.parametrize("kind", ["empty", "-1", "300", "junk", "link", "fifo", "directory"])
def test_exit_file_that_is_none_counts_as_lost(node: Node, kind: str) -> None:
    async def scenario() -> None:
        runtime = node.runtime("crun")
        watched = await node.start(runtime, node.request(["sleep", "1000"]))
        os.kill(watched.monitor_pid, signal.SIGKILL)
        path = node.root / "exits" / watched.container_id
        make = {
            "link": lambda: path.symlink_to("/etc/hostname"),
            "fifo": lambda: os.mkfifo(path),
            "directory": path.mkdir,
            "empty": path.touch,
        }
        make.get(kind, lambda: path.write_text(kind))()
        exit_ = await runtime.wait_exit(watched)
        assert exit_.code == 137
        assert exit_.reason
        if kind == "directory":
            path.rmdir()
        await runtime.delete(watched.container_id, cgroup_parent=PARENT)

    asyncio.run(scenario())


def test_broken_handler_is_dropped_and_a_broken_default_is_an_error(node: Node) -> None:
    broken = node.runtime(_program(node, "broken", "exit 1"))
    good = node.runtime("crun")

    async def scenario() -> None:
        handlers = await open_handlers({"crun": good, "broken": broken}, "crun")
        assert handlers.names() == ["crun"]
        assert handlers.get("") is good
        assert handlers.probes["crun"].version.name == "crun"
        with pytest.raises(Unavailable, match="default runtime handler broken"):
            await open_handlers({"crun": good, "broken": broken}, "broken")

    asyncio.run(scenario())


def test_versions_and_features_of_the_real_ones(node: Node) -> None:
    crun, runc = (asyncio.run(node.runtime(name).probe()) for name in ("crun", "runc"))
    assert crun.version.numbers[:1] == (1,)
    assert runc.version.name == "runc"
    assert "ociVersionMin" in runc.features
