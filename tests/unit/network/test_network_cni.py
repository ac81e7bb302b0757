"""network.cni with plugins that record, fail, lie and hang: programs written by the test."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import leaks
from support.waiting import run, skip_ahead_when

from criollo.aio.together import together
from criollo.errors import CriolloError, Invalid, NotFound, TimedOut, ToolFailed, Unavailable
from criollo.model.pod import PortMapping, Protocol
from criollo.network.attachment import Attachment
from criollo.network.cni import NOT_READY, Cni, CniOptions

POD, OTHER = "a" * 64, "b" * 64
LIMIT_S = 20  # of plugins that hang; less than that of `run`
RESULT = '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1"}], "dns": {}}'
PLUGIN = """#!/bin/sh
here={here}
kind=${{0##*/}}
number=$(ls $here/log | wc -l)
{{ env | sort; pwd; echo ---; cat; }} > $here/log/$(printf %03d $number).$CNI_COMMAND.$kind
[ -f $here/do/$CNI_COMMAND.$kind ] && . $here/do/$CNI_COMMAND.$kind
[ $CNI_COMMAND = ADD ] && echo '{result}'
exit 0
"""


class Node:
    """A node's network directories, and the programs in them."""

    def __init__(self, root: Path) -> None:
        self.root, self.net_d, self.bin, self.cache = root, root / "net.d", root / "bin", root / "cache"
        for directory in (self.net_d, self.bin, root / "log", root / "do"):
            directory.mkdir()
        for kind in ("one", "two", "three", "portmap"):
            self.program(kind, PLUGIN.format(here=root, result=RESULT))

    def program(self, kind: str, text: str) -> None:
        (self.bin / kind).write_text(text)
        (self.bin / kind).chmod(0o755)

    def chain(self, *kinds: str, version: str = "1.0.0", file: str = "10.conflist", **more: object) -> None:
        plugins = [{"type": kind, "capabilities": {"portMappings": True}} for kind in kinds]
        document = {"cniVersion": version, "name": "net", "plugins": plugins, **more}
        (self.net_d / file).write_text(json.dumps(document))

    def make(self, command: str, kind: str, script: str) -> None:
        (self.root / "do" / f"{command}.{kind}").write_text(script)

    def unmake(self) -> None:
        for path in (self.root / "do").iterdir():
            path.unlink()

    @property
    def calls(self) -> list[str]:
        """COMMAND.plugin of every execution, in order."""
        return [name.split(".", 1)[1] for name in sorted(os.listdir(self.root / "log"))]

    def request(self, number: int) -> tuple[dict[str, str], dict[str, Any]]:
        """Environment and configuration of one execution."""
        name = sorted(os.listdir(self.root / "log"))[number]
        head, _, body = (self.root / "log" / name).read_text().partition("---\n")
        lines = head.splitlines()
        return dict(line.split("=", 1) for line in lines[:-1]) | {"cwd": lines[-1]}, json.loads(body)

    @property
    def kept(self) -> list[str]:
        return sorted(os.listdir(self.cache / "results")) if (self.cache / "results").is_dir() else []

    async def cni(self, **options: object) -> Cni:
        cni = Cni(self.net_d, [self.bin], self.cache, options=CniOptions(**options))  # type: ignore[arg-type]
        await cni.load()
        return cni


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def pod(pod_id: str = POD, **more: object) -> Attachment:
    fields = {"pod_id": pod_id, "netns": "/run/netns/none", "name": "web", "namespace": "default", "uid": "u", **more}
    return Attachment(**fields)  # type: ignore[arg-type]


async def add_that_hangs(node: Node) -> None:
    """ADD of plugins one of which makes the file `hangs` when it has done all else: its limit passes then, and not before."""
    adding: Coroutine[Any, Any, object] = (await node.cni(plugin_s=LIMIT_S)).add(pod())
    await together([adding, skip_ahead_when((node.root / "hangs").exists, LIMIT_S)])


async def attached(node: Node, *kinds: str, **more: object) -> Cni:
    node.chain(*kinds, **more)  # type: ignore[arg-type]
    cni = await node.cni()
    await cni.add(pod())
    return cni


def test_add_runs_the_chain_in_order_and_passes_the_result_on(node: Node) -> None:
    async def work() -> None:
        node.chain("one", "two")
        answer = await (await node.cni()).add(pod())
        assert answer.ips == ("10.1.0.5",)
        assert answer.network_name == "net"
        assert msgspec.json.decode(answer.result)["ips"][0]["gateway"] == "10.1.0.1"

    run(work())
    assert node.calls == ["ADD.one", "ADD.two"]
    assert "prevResult" not in node.request(0)[1]
    assert node.request(1)[1]["prevResult"] == json.loads(RESULT)


def test_plugins_get_a_minimal_environment_and_root_as_directory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_CANARY", "1")
    run(attached(node, "one"))
    environment = node.request(0)[0]
    assert environment.pop("PATH")
    for noise in ("_", "SHLVL", "OLDPWD", "LC_ALL", "PWD"):
        environment.pop(noise, None)
    assert environment == {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": POD,
        "CNI_NETNS": "/run/netns/none",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(node.bin),
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"
        f"K8S_POD_INFRA_CONTAINER_ID={POD};K8S_POD_UID=u",
        "cwd": "/",
    }


def test_delete_runs_backwards_with_the_final_result_and_forgets(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one", "two")
        assert len(node.kept) == 1
        await cni.delete(pod())

    run(work())
    assert node.calls[2:] == ["DEL.two", "DEL.one"]
    assert [node.request(number)[1]["prevResult"] for number in (2, 3)] == [json.loads(RESULT)] * 2
    assert node.kept == []


def test_delete_tells_no_result_before_0_4_0(node: Node) -> None:
    async def work() -> None:
        await (await attached(node, "one", version="0.3.1")).delete(pod())

    run(work())
    assert "prevResult" not in node.request(1)[1]


def test_delete_of_a_gone_namespace_gives_an_empty_path(node: Node) -> None:
    async def work() -> None:
        await (await attached(node, "one")).delete(pod())

    run(work())
    assert node.request(1)[0]["CNI_NETNS"] == ""


def test_delete_uses_the_configuration_of_the_add(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        node.chain("two")
        await cni.load()
        await cni.delete(pod())

    run(work())
    assert node.calls == ["ADD.one", "DEL.one"]


def test_delete_works_after_a_restart_without_any_configuration(node: Node) -> None:
    async def work() -> None:
        await attached(node, "one")
        (node.net_d / "10.conflist").unlink()
        await (await node.cni()).delete(pod())

    run(work())
    assert node.calls == ["ADD.one", "DEL.one"]
    assert node.kept == []


def test_delete_without_cache_and_configuration_succeeds(node: Node) -> None:
    async def work() -> None:
        await (await node.cni()).delete(pod())

    run(work())
    assert node.calls == []


def test_delete_without_cache_uses_the_present_configuration(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        await (await node.cni()).delete(pod())

    run(work())
    assert node.calls == ["DEL.one"]


def test_delete_of_a_pod_that_could_not_be_added_succeeds(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        cni = await node.cni()
        with pytest.raises(Invalid):
            await cni.add(pod(name="a;b=c"))
        await cni.delete(pod(name="a;b=c"))

    run(work())
    assert node.calls == []


def test_delete_with_a_damaged_cache_file_still_releases_and_forgets(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        (node.cache / "results" / node.kept[0]).write_bytes(b'{"kind": "cniCac')
        await cni.delete(pod())

    run(work())
    assert node.calls == ["ADD.one", "DEL.one"]
    assert node.kept == []


def test_failed_add_undoes_the_whole_chain_and_tells_the_plugins_words(node: Node) -> None:
    async def work() -> ToolFailed:
        node.chain("one", "two", "three")
        node.make("ADD", "two", """echo '{"code": 11, "msg": "no room", "details": "10.1.0.0/16 is full"}'; exit 1""")
        with pytest.raises(ToolFailed) as caught:
            await (await node.cni()).add(pod())
        return caught.value

    error = run(work())
    assert "no room; 10.1.0.0/16 is full" in str(error)
    assert "plugin two" in str(error)
    assert node.calls == ["ADD.one", "ADD.two", "DEL.three", "DEL.two", "DEL.one"]
    assert node.kept == []


def test_what_a_failed_add_could_not_undo_is_deleted_later(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        node.make("ADD", "one", "exit 1")
        node.make("DEL", "one", "exit 1")
        cni = await node.cni()
        with pytest.raises(ToolFailed):
            await cni.add(pod())
        assert len(node.kept) == 1
        node.unmake()
        await cni.delete(pod())

    run(work())
    assert node.kept == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 0", "no result"),
        ("echo nonsense; exit 0", "no JSON object"),
        ("echo '[]'; exit 0", "no JSON object"),
        ("""echo '{"ips": [{"address": "x"}]}'; exit 0""", "malformed address"),
        ("""echo '{"ips": [{"address": "224.0.0.1/24"}]}'; exit 0""", "none that a pod can have"),
        ("""echo '{"code": 7, "msg": "bad"}'; exit 0""", "bad"),
        (f"echo '{RESULT}'; exit 3", "exit status 3"),
        ("echo broken pipe dream >&2; exit 2", "broken pipe dream"),
        ("head -c 10000000 /dev/zero; exit 0", "1048576"),
        ("head -c 100000000 /dev/zero >&2; echo; exit 0", "no result"),
        ("kill -9 $$", "signal 9"),
    ],
)
def test_a_plugin_that_answers_nonsense_fails_the_add_and_is_undone(node: Node, script: str, said: str) -> None:
    async def work() -> ToolFailed:
        node.chain("one", "two")
        node.make("ADD", "two", script)
        with pytest.raises(ToolFailed) as caught:
            await (await node.cni()).add(pod())
        return caught.value

    assert said in str(run(work()))
    assert node.calls[2:] == ["DEL.two", "DEL.one"]
    assert node.kept == []


def test_a_hanging_plugin_is_killed_with_its_children_and_named(node: Node) -> None:
    async def work() -> TimedOut:
        node.chain("one")
        node.make("ADD", "one", f"sleep 1000 & echo $! > {node.root}/pid; touch {node.root}/hangs; wait")
        with pytest.raises(TimedOut) as caught:
            await add_that_hangs(node)
        return caught.value

    assert "plugin one" in str(run(work()))
    child = int((node.root / "pid").read_text())
    try:
        with open(f"/proc/{child}/stat") as file:  # gone, or a zombie that init has not collected yet
            assert file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        pass
    assert node.calls == ["ADD.one", "DEL.one"]
    assert node.kept == []


def test_a_grandchild_that_keeps_the_pipe_does_not_keep_us(node: Node) -> None:
    async def work() -> tuple[str, ...]:
        node.chain("one")
        node.make("ADD", "one", f"sleep 1000 & echo $! > {node.root}/pid")
        return (await (await node.cni(plugin_s=30)).add(pod())).ips

    try:
        assert run(work()) == ("10.1.0.5",)
    finally:
        os.kill(int((node.root / "pid").read_text()), signal.SIGKILL)


def test_a_cancelled_add_stays_known_and_can_be_deleted(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        node.make("ADD", "one", f"touch {node.root}/started; exec sleep 1000")
        cni = await node.cni()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(cni.add(pod()))
            while not (node.root / "started").exists():
                await asyncio.sleep(0.01)
            task.cancel()
        assert len(node.kept) == 1
        await cni.delete(pod())

    run(work())
    assert node.calls == ["ADD.one", "DEL.one"]
    assert node.kept == []


def test_delete_goes_on_after_a_failing_plugin_and_tells_the_first_error(node: Node) -> None:
    async def work() -> CriolloError:
        cni = await attached(node, "one", "two", "three")
        node.make("DEL", "three", "echo third >&2; exit 1")
        node.make("DEL", "two", "echo second >&2; exit 1")
        with pytest.raises(ToolFailed) as caught:
            await cni.delete(pod())
        assert len(node.kept) == 1
        node.unmake()
        await cni.delete(pod())
        return caught.value

    error = run(work())
    assert "third" in str(error)
    assert "second" in error.__notes__[0]
    assert node.calls[3:] == ["DEL.three", "DEL.two", "DEL.one"] * 2
    assert node.kept == []


def test_container_unknown_is_success_of_a_delete(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        node.make("DEL", "one", """echo '{"code": 3, "msg": "unknown"}'; exit 1""")
        await cni.delete(pod())

    run(work())
    assert node.kept == []


def test_a_plugin_that_was_uninstalled_keeps_the_attachment_until_it_is_back(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one", "two")
        (node.bin / "one").rename(node.bin / "gone")
        with pytest.raises(Unavailable):
            await cni.delete(pod())
        assert node.calls[2:] == ["DEL.two"]
        assert len(node.kept) == 1
        (node.bin / "gone").rename(node.bin / "one")
        await cni.delete(pod())

    run(work())
    assert node.kept == []


PORTS = (PortMapping(protocol=Protocol.TCP, container_port=80, host_port=8080),)


@pytest.mark.parametrize(
    ("ports", "shortcuts", "runs"), [((), True, False), (PORTS, True, True), ((), False, True), (PORTS, False, True)]
)
def test_portmap_without_ports_is_not_run_while_shortcuts_are_on(
    node: Node, ports: tuple[PortMapping, ...], shortcuts: bool, runs: bool
) -> None:
    async def work() -> None:
        node.chain("one", "portmap")
        cni = await node.cni(shortcuts=shortcuts)
        assert (await cni.add(pod(ports=ports))).ips == ("10.1.0.5",)
        await cni.delete(pod(ports=ports))

    run(work())
    expected = ["ADD.one", "ADD.portmap", "DEL.portmap", "DEL.one"] if runs else ["ADD.one", "DEL.one"]
    assert node.calls == expected


def test_delete_has_the_ports_of_the_add(node: Node) -> None:
    async def work() -> None:
        node.chain("one", "portmap")
        await (await node.cni()).add(pod(ports=PORTS))
        await (await node.cni()).delete(pod())

    run(work())
    assert node.calls[2] == "DEL.portmap"
    assert node.request(2)[1]["runtimeConfig"]["portMappings"][0]["hostPort"] == 8080


def test_add_without_a_network_says_why(node: Node) -> None:
    async def work() -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            await (await node.cni()).add(pod())
        return caught.value

    assert "Network plugin returns error: No CNI configuration file" in str(run(work()))


def test_status_names_the_bad_file(node: Node) -> None:
    async def work() -> None:
        (node.net_d / "10-bad.conflist").write_text("{")
        status = (await node.cni()).status()
        assert (status.ready, status.reason) == (False, NOT_READY)
        assert status.message.startswith("Network plugin returns error: ")
        assert "10-bad.conflist" in status.message

    run(work())


def test_status_is_ready_with_a_network(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        status = (await node.cni()).status()
        assert (status.ready, status.reason, status.message) == (True, "", "")

    run(work())


def test_watch_follows_the_directory(node: Node) -> None:
    async def until(cni: Cni, ready: bool) -> None:
        while cni.status().ready is not ready:
            await asyncio.sleep(0.01)

    async def work() -> None:
        cni = await node.cni()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(cni.watch())
            assert not cni.status().ready
            node.chain("one")
            await until(cni, True)
            (node.bin / "one").rename(node.bin / "gone")
            await until(cni, False)
            (node.bin / "gone").rename(node.bin / "one")
            await until(cni, True)
            (node.net_d / "10.conflist").unlink()
            await until(cni, False)
            watching.cancel()

    run(work())


def test_status_verb_makes_the_network_unready_and_ready_again(node: Node) -> None:
    async def work() -> None:
        node.chain("one", version="1.1.0")
        cni = await node.cni(status_age_s=0)
        node.make("STATUS", "one", """echo '{"code": 50, "msg": "daemon is down"}'; exit 1""")
        await cni.refresh()
        assert "daemon is down" in cni.status().message
        node.unmake()
        await cni.refresh()
        assert cni.status().ready

    run(work())
    assert "CNI_CONTAINERID" not in node.request(0)[0]


def test_status_verb_is_asked_once_in_a_while_only(node: Node) -> None:
    async def work() -> None:
        node.chain("one", version="1.1.0")
        cni = await node.cni(status_age_s=1000)
        await cni.refresh()
        await cni.refresh()

    run(work())
    assert node.calls == ["STATUS.one"]


def test_status_verb_is_not_asked_before_1_1_0(node: Node) -> None:
    async def work() -> None:
        node.chain("one", version="1.0.0")
        await (await node.cni()).refresh()

    run(work())
    assert node.calls == []


def test_check_runs_forward_with_the_kept_result(node: Node) -> None:
    async def work() -> None:
        await (await attached(node, "one", "two")).check(pod())

    run(work())
    assert node.calls[2:] == ["CHECK.one", "CHECK.two"]
    assert node.request(2)[1]["prevResult"] == json.loads(RESULT)


@pytest.mark.parametrize("more", [{"disableCheck": True}, {"version": "0.3.1"}])
def test_check_is_not_run_where_it_must_not(node: Node, more: dict[str, Any]) -> None:
    async def work() -> None:
        await (await attached(node, "one", **more)).check(pod())

    run(work())
    assert node.calls == ["ADD.one"]


def test_check_of_an_unknown_pod_is_not_found(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        with pytest.raises(NotFound):
            await (await node.cni()).check(pod())

    run(work())


def test_check_tells_what_is_broken(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        node.make("CHECK", "one", """echo '{"code": 100, "msg": "eth0 is gone"}'; exit 1""")
        with pytest.raises(ToolFailed, match="eth0 is gone"):
            await cni.check(pod())

    run(work())


@pytest.mark.parametrize(
    "script",
    [
        "echo 'password=S3CRET https://u:S3CRET@host/' >&2; exit 1",
        """echo '{"code": 7, "msg": "no lease", "details": "token: S3CRET"}'; exit 1""",
        "echo 'token=S3CRET' >&2; touch {root}/hangs; exec sleep 1000",
    ],
)
def test_secrets_in_a_plugins_words_stay_there(node: Node, script: str) -> None:
    async def work() -> None:
        node.chain("one")
        node.make("ADD", "one", script.replace("{root}", str(node.root)))
        with pytest.raises(CriolloError) as caught:
            await (add_that_hangs(node) if "hangs" in script else (await node.cni()).add(pod()))
        assert "***" in str(caught.value)
        assert "S3CRET" not in "".join((str(caught.value), *getattr(caught.value, "__notes__", ())))

    run(work())


def test_who_waits_for_a_network_goes_on_when_it_comes(node: Node) -> None:
    async def work() -> None:
        cni = await node.cni()
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(cni.wait_ready()) for _ in range(2)]
            await cni.load()
            await asyncio.sleep(0)
            assert not any(each.done() for each in waiting)
            node.chain("one")
            await cni.load()
        await cni.wait_ready()

    run(work())


def test_who_waits_asks_plugins_again_that_were_not_available(node: Node) -> None:
    async def work() -> None:
        node.chain("one", version="1.1.0")
        node.make("STATUS", "one", """echo '{"code": 50, "msg": "no controller"}'; exit 1""")
        cni = await node.cni(status_age_s=0.01)
        await cni.refresh()
        assert not cni.status().ready
        node.unmake()
        await cni.wait_ready()
        assert cni.status().ready

    run(work())


def test_gc_deletes_what_belongs_to_no_pod(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        await cni.add(pod(OTHER))
        assert await cni.gc({OTHER}) == ()

    run(work())
    assert node.calls[2:] == ["DEL.one"]
    assert node.request(2)[0]["CNI_CONTAINERID"] == POD
    assert node.kept == [f"net-{OTHER}-eth0"]


def test_gc_forgets_what_was_never_finished(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        for each in (POD, OTHER):
            (node.cache / f"results/.net-{each}-eth0.0123abcd").touch()
        await cni.gc({POD})
        assert node.kept == [f".net-{POD}-eth0.0123abcd", f"net-{POD}-eth0"]
        await cni.delete(pod())

    run(work())
    assert node.kept == []


def test_gc_leaves_other_runtimes_alone(node: Node) -> None:
    async def work() -> None:
        await attached(node, "one")
        await (await node.cni(owner="somebody else")).gc(())

    run(work())
    assert node.calls == ["ADD.one"]
    assert len(node.kept) == 1


def test_gc_names_what_it_could_not_delete(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        node.make("DEL", "one", "exit 1")
        assert await cni.gc(()) == (POD,)
        node.unmake()
        assert await cni.gc(()) == ()

    run(work())
    assert node.kept == []


def test_gc_verb_has_all_live_attachments_of_the_network(node: Node) -> None:
    async def work() -> None:
        cni = await attached(node, "one", version="1.1.0")
        foreign = await node.cni(owner="somebody else")
        await foreign.add(pod(OTHER))
        await cni.gc({POD})

    run(work())
    assert node.calls[2:] == ["GC.one"]
    listed = node.request(2)[1]["cni.dev/valid-attachments"]
    assert sorted(entry["containerID"] for entry in listed) == [POD, OTHER]
    assert {entry["ifname"] for entry in listed} == {"eth0"}


@pytest.mark.parametrize("more", [{"disableGC": True, "version": "1.1.0"}, {"version": "1.0.0"}])
def test_gc_verb_is_not_run_where_it_must_not(node: Node, more: dict[str, Any]) -> None:
    async def work() -> None:
        await (await attached(node, "one", **more)).gc({POD})

    run(work())
    assert node.calls == ["ADD.one"]


def test_pods_are_attached_in_parallel(node: Node) -> None:
    async def work() -> None:
        node.chain("one")
        node.make(
            "ADD", "one", f"touch {node.root}/$CNI_CONTAINERID; while [ $(ls {node.root} | grep -c ^aaa) -lt 3 ]; do :; done"
        )
        cni = await node.cni()
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(cni.add(pod("a" * 63 + str(number))))

    run(work())
    assert len(node.kept) == 3


@pytest.mark.parametrize("script", ["exit 1", "echo; exit 0", ""])
def test_no_descriptor_is_left(node: Node, script: str) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        await cni.delete(pod())
        node.make("ADD", "one", script)
        before = leaks.descriptors()
        with contextlib.suppress(CriolloError):
            await cni.add(pod())
        await cni.delete(pod())
        assert leaks.new_descriptors(before) == []

    run(work())


def test_a_leftover_that_stays_is_told_once(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        cni = await attached(node, "one")
        node.make("DEL", "one", "echo busy >&2; exit 1")
        for _ in range(3):
            assert await cni.gc([], verb=False) == (POD,)
        node.unmake()
        assert await cni.gc([], verb=False) == ()

    run(work())
    assert caplog.text.count("leftover network attachment stays") == 1
